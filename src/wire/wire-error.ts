/** Why a message was refused. The words are the refusal codes of the data plane, so that nobody has to translate. */
export type WireErrorCode =
  | "bad_request"
  | "bad_header"
  | "ambiguous_length"
  | "bad_chunk"
  | "bad_host"
  | "head_too_large"
  | "version_not_supported"
  | "method_not_supported"
  | "expectation_failed"
  | "upstream_broken";

/** A message that is refused, and where. After one of these a connection cannot be read any further. */
export type WireError = {
  readonly code: WireErrorCode;
  /** One sentence for our log: what was wrong. Quotes nothing the peer sent but single octets and field names. */
  readonly detail: string;
  /** Bytes of the connection before the octet that gave it away; for an error of meaning, before the octet after the head. */
  readonly offset: number;
};
