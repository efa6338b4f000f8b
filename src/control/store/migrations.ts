/**
 * How the schema came to be, one step a version; `user_version` counts the steps that were taken. Forward only: a step that
 * was released is never edited, the next one corrects it. Texts of JSON hold what is only ever read whole.
 */
export const migrations: readonly string[] = [
  `
  CREATE TABLE snapshots (
    epoch INTEGER NOT NULL CHECK (epoch > 0),
    version INTEGER NOT NULL CHECK (version > 0),
    author TEXT NOT NULL,
    at INTEGER NOT NULL,
    digest TEXT NOT NULL,
    reason TEXT NOT NULL,
    payload TEXT NOT NULL,
    signature TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (epoch, version)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE revocations (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    principal TEXT NOT NULL,
    serial TEXT,
    lineage TEXT,
    at INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX revocations_by_principal ON revocations (principal);

  CREATE TABLE principals (
    principal TEXT PRIMARY KEY,
    role TEXT CHECK (role IN ('admin', 'deployer', 'enroller', 'auditor')),
    owners TEXT NOT NULL,
    services TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    removed_ms INTEGER
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE tokens (
    hash TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    role TEXT,
    created_by TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    from_cidrs TEXT NOT NULL,
    spent_by TEXT,
    spent_ms INTEGER,
    CHECK ((spent_by IS NULL) = (spent_ms IS NULL))
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX tokens_by_principal ON tokens (principal);

  CREATE TABLE issued (
    plane TEXT NOT NULL CHECK (plane IN ('control', 'data')),
    serial TEXT NOT NULL,
    principal TEXT NOT NULL,
    lineage TEXT NOT NULL,
    predecessor TEXT,
    token TEXT REFERENCES tokens (hash) ON DELETE SET NULL,
    public_key TEXT NOT NULL,
    cert_pem TEXT NOT NULL,
    not_before_ms INTEGER NOT NULL,
    not_after_ms INTEGER NOT NULL,
    at INTEGER NOT NULL,
    via TEXT NOT NULL,
    PRIMARY KEY (plane, serial)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX issued_by_token ON issued (token) WHERE token IS NOT NULL;
  CREATE INDEX issued_by_predecessor ON issued (plane, predecessor) WHERE predecessor IS NOT NULL;
  CREATE INDEX issued_by_end ON issued (not_after_ms);

  CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  `,
  `
  CREATE TABLE gates (
    name TEXT PRIMARY KEY,
    state TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE anchors (
    source TEXT NOT NULL,
    chain TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    head TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (source, chain)
  ) STRICT, WITHOUT ROWID;
  `,
];
