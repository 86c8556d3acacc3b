"""What each reason of `pincex.common.v1.ErrorReason` means on the wire: the one table.

A row says the gRPC status code, the sentence a person reads when the service gives none of its own, the metadata
keys that the contract promises, and whether RetryInfo or QuotaFailure belongs to it. The comments of
`proto/pincex/common/v1/errors.proto` promise all of this; `tests/unit/runtime/test_errors.py` holds the two equal.
"""

from dataclasses import dataclass
from typing import Final

import grpc

_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
_DENIED = grpc.StatusCode.PERMISSION_DENIED
_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
_NOT_FOUND = grpc.StatusCode.NOT_FOUND
_EXISTS = grpc.StatusCode.ALREADY_EXISTS
_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
_RANGE = grpc.StatusCode.OUT_OF_RANGE
_LOSS = grpc.StatusCode.DATA_LOSS

# Envoy's own mapping (`grpc_json_transcoder`, convert_grpc_status), so that the documents say what REST shows.
HTTP_STATUS: Final[dict[grpc.StatusCode, int]] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}


@dataclass(frozen=True, slots=True)
class ReasonRow:
    """What one reason means on the wire.

    `retry_after_seconds` is the default of RetryInfo, None where the contract promises none. `quota` says that
    QuotaFailure belongs to it. `http_override` is set where the edge answers another status than `code` maps to.
    """

    name: str
    code: grpc.StatusCode
    message: str
    metadata: tuple[str, ...] = ()
    retry_after_seconds: float | None = None
    quota: bool = False
    http_override: int | None = None

    @property
    def http_status(self) -> int:
        """The status that a REST client sees."""
        return self.http_override if self.http_override is not None else HTTP_STATUS[self.code]


ROWS: Final[tuple[ReasonRow, ...]] = (
    # The request itself is wrong.
    ReasonRow("FIELD_REQUIRED", _INVALID, "a required field is empty", ("field",)),
    ReasonRow("INVALID_FIELD", _INVALID, "the field does not have the form its comment states", ("field", "value")),
    ReasonRow(
        "INVALID_DECIMAL",
        _INVALID,
        "not a decimal: digits with at most one point, no sign, no exponent, at most 38 digits",
        ("field", "value"),
    ),
    ReasonRow("NOT_POSITIVE", _INVALID, "the number must be greater than zero", ("field", "value")),
    ReasonRow(
        "PRICE_OFF_TICK",
        _INVALID,
        "the price is not a multiple of the market's tick size",
        ("field", "value", "tick_size"),
    ),
    ReasonRow(
        "QUANTITY_OFF_LOT",
        _INVALID,
        "the quantity is not a multiple of the market's lot size",
        ("field", "value", "lot_size"),
    ),
    ReasonRow("UNKNOWN_ENUM_VALUE", _INVALID, "the enum field is unset or its value is not known here", ("field",)),
    ReasonRow("UNKNOWN_SYMBOL", _NOT_FOUND, "no market has this symbol", ("symbol",)),
    ReasonRow("UNKNOWN_ASSET", _NOT_FOUND, "no asset has this code", ("asset",)),
    ReasonRow("FIELD_NOT_ALLOWED", _INVALID, "the field does not go with the others that are set", ("field",)),
    ReasonRow(
        "NUMBER_TOO_LARGE", _INVALID, "the number is larger than the engine can hold exactly", ("field", "value")
    ),
    ReasonRow("REQUEST_TOO_OLD", _PRECONDITION, "request_time is older than the time for which ids are remembered"),
    ReasonRow("INVALID_PAGE_TOKEN", _INVALID, "page_token was not made by this server for these filters"),
    ReasonRow("BATCH_TOO_LARGE", _INVALID, "the batch holds more commands than the limit", ("limit",)),
    # Who asks, and how much.
    ReasonRow("UNAUTHENTICATED", _UNAUTHENTICATED, "the caller is not known: sign in first"),
    ReasonRow("PERMISSION_DENIED", _DENIED, "the caller may not do this"),
    ReasonRow("OVERLOADED", _EXHAUSTED, "too many requests are waiting already", ("limit",), retry_after_seconds=0.1),
    ReasonRow("QUOTA_EXCEEDED", _EXHAUSTED, "a limit of the caller is used up", ("limit",), quota=True),
    ReasonRow("CREDENTIALS_REFUSED", _UNAUTHENTICATED, "name, password or code is wrong"),
    ReasonRow("SECOND_FACTOR_REQUIRED", _UNAUTHENTICATED, "a code of the second factor is needed"),
    ReasonRow("TOKEN_EXPIRED", _UNAUTHENTICATED, "the token has expired: refresh it"),
    ReasonRow("TOKEN_REFUSED", _UNAUTHENTICATED, "the token is not one of this exchange"),
    ReasonRow("CREDENTIAL_REVOKED", _UNAUTHENTICATED, "the session or key was ended or revoked"),
    ReasonRow(
        "SIGNATURE_REFUSED",
        _UNAUTHENTICATED,
        "the signature is not that of the request",
        ("server_time", "signed"),
    ),
    ReasonRow(
        "TIMESTAMP_OUT_OF_WINDOW",
        _UNAUTHENTICATED,
        "the timestamp lies outside the window",
        ("server_time", "timestamp", "window_ms"),
    ),
    ReasonRow("NONCE_REUSED", _UNAUTHENTICATED, "the nonce was used before by this key", ("server_time",)),
    ReasonRow("ADDRESS_NOT_ALLOWED", _DENIED, "the key may not be used from this address", ("address",)),
    ReasonRow("SCOPE_MISSING", _DENIED, "the token or key lacks the scope that the method needs", ("scope",)),
    ReasonRow("ACCOUNT_LOCKED", _DENIED, "the account is locked"),
    ReasonRow("TOO_MANY_ATTEMPTS", _EXHAUSTED, "too many attempts: wait", retry_after_seconds=1.0),
    # The state of the exchange forbids it.
    ReasonRow("INSUFFICIENT_FUNDS", _PRECONDITION, "the account has less available than this needs", ("asset",)),
    ReasonRow("ORDER_NOT_FOUND", _NOT_FOUND, "the account has no such order, or it ended too long ago to be kept"),
    ReasonRow("ORDER_CLOSED", _PRECONDITION, "the order is filled or cancelled already"),
    ReasonRow("DUPLICATE_ID", _EXISTS, "the id was used before with another body"),
    ReasonRow("POST_ONLY_WOULD_CROSS", _PRECONDITION, "the post-only order would have traded at once"),
    ReasonRow("FOK_NOT_FILLABLE", _PRECONDITION, "the fill-or-kill order cannot be filled whole now"),
    ReasonRow("NO_LIQUIDITY", _PRECONDITION, "the market order met an empty book"),
    ReasonRow("PRICE_OUT_OF_BAND", _PRECONDITION, "the price is outside the band around the reference price"),
    ReasonRow("QUANTITY_TOO_SMALL", _PRECONDITION, "the quantity is below the market's smallest order"),
    ReasonRow("QUANTITY_TOO_LARGE", _PRECONDITION, "the quantity is above the market's largest order"),
    ReasonRow("NOTIONAL_TOO_SMALL", _PRECONDITION, "price times quantity is below the market's least notional"),
    ReasonRow("TOO_MANY_OPEN_ORDERS", _EXHAUSTED, "the account has as many open orders as it may have"),
    ReasonRow("MARKET_CANCEL_ONLY", _PRECONDITION, "the market takes cancels only"),
    ReasonRow("MARKET_HALTED", _PRECONDITION, "the market is halted"),
    ReasonRow("NEW_ORDERS_DISABLED", _PRECONDITION, "new orders are switched off by ACCEPT_NEW_ORDERS"),
    ReasonRow("MAINTENANCE", _PRECONDITION, "the exchange is in maintenance: cancels, reductions and reads only"),
    ReasonRow("CIRCUIT_BREAKER", _PRECONDITION, "the circuit breaker is on: cancels, reductions and reads only"),
    ReasonRow("STOP_ALREADY_REACHED", _PRECONDITION, "the stop price is reached already"),
    ReasonRow("REDUCE_EXCEEDS_OPEN", _PRECONDITION, "more is to be taken off than is open"),
    ReasonRow(
        "FILLED_QUANTITY_CHANGED", _PRECONDITION, "the order was filled further than expected_filled_quantity says"
    ),
    ReasonRow("EXPIRE_TIME_PASSED", _PRECONDITION, "expire_time is not in the future"),
    ReasonRow("ORDER_ASLEEP", _PRECONDITION, "a sleeping stop order cannot be replaced: cancel it and place another"),
    ReasonRow("ALREADY_EXISTS", _EXISTS, "an asset, market or hold of this name exists already"),
    ReasonRow("INVALID_DEFINITION", _INVALID, "the definition breaks a rule of money"),
    ReasonRow("BALANCE_LIMIT", _PRECONDITION, "the sum would exceed what the engine can hold exactly"),
    ReasonRow("HOLD_NOT_FOUND", _NOT_FOUND, "no such hold"),
    ReasonRow("TOO_MANY_SESSIONS", _EXHAUSTED, "the account has as many sessions as it may have"),
    ReasonRow(
        "COMMAND_NUMBER_OUT_OF_WINDOW",
        _PRECONDITION,
        "the command number is older than the session remembers, or leaves a gap",
    ),
    ReasonRow("RULES_NOT_SUPPORTED", _PRECONDITION, "not every replica supports these rules"),
    ReasonRow("SESSION_NOT_FOUND", _NOT_FOUND, "the session was never opened, is closed, or expired"),
    ReasonRow("TOO_MANY_OBJECTS", _EXHAUSTED, "as many markets, assets or accounts exist as the engine may hold"),
    ReasonRow(
        "COMMAND_NUMBER_USED",
        _PRECONDITION,
        "this command was refused before and later ones were applied: send it with a new number",
    ),
    # The service cannot answer now, or not from there.
    ReasonRow(
        "JOURNAL_UNAVAILABLE",
        _UNAVAILABLE,
        "the outcome is unknown or the journal is away: ask again with the same id",
        retry_after_seconds=0.5,
    ),
    ReasonRow("DRAINING", _UNAVAILABLE, "this server is stopping: connect again", retry_after_seconds=0.5),
    ReasonRow("NOT_READY", _UNAVAILABLE, "this server has not finished starting", retry_after_seconds=0.25),
    ReasonRow("SEQUENCE_NOT_REACHED", _UNAVAILABLE, "min_sequence was not reached in time", ("sequence",)),
    ReasonRow("SEQUENCE_IN_FUTURE", _RANGE, "the stream starts beyond the head", ("head_sequence",)),
    ReasonRow(
        "SEQUENCE_NOT_RETAINED",
        _RANGE,
        "the stream starts below what is retained: begin from a snapshot",
        ("floor_sequence",),
    ),
    ReasonRow(
        "HISTORY_CHANGED",
        _LOSS,
        "the resume token belongs to another history of this exchange: discard state and begin again",
    ),
    ReasonRow("INVALID_RESUME_TOKEN", _INVALID, "the resume token cannot be read"),
    ReasonRow("SLOW_CONSUMER", _EXHAUSTED, "the subscriber read too slowly: resume with the last token"),
    ReasonRow("SESSION_TAKEN_OVER", grpc.StatusCode.ABORTED, "the session was taken over by a newer connection"),
    ReasonRow("PROTOCOL_VIOLATION", _INVALID, "the stream broke the protocol of its contract"),
    ReasonRow("INTERNAL", grpc.StatusCode.INTERNAL, "a defect of the server; the request id leads to its log"),
    ReasonRow("TOO_MANY_STREAMS", _EXHAUSTED, "as many streams are open as the server or the account may have"),
    ReasonRow("RESPONSE_TOO_LARGE", _EXHAUSTED, "the answer would not fit: ask for less"),
    ReasonRow("STATE_DIFFERS", _LOSS, "the state on this instance differs from the journal"),
    ReasonRow("AUTH_UNAVAILABLE", _UNAVAILABLE, "tokens cannot be checked now: ask again", retry_after_seconds=1.0),
    ReasonRow(
        "AUDIT_UNAVAILABLE", _UNAVAILABLE, "the audit trail cannot be written now: ask again", retry_after_seconds=1.0
    ),
    # Said by the edge itself.
    ReasonRow("UNKNOWN_PATH", _NOT_FOUND, "no such path or method"),
    ReasonRow("BODY_TOO_LARGE", _EXHAUSTED, "the body is larger than the limit", http_override=413),
    ReasonRow("MALFORMED_REQUEST", _INVALID, "the request does not fit the contract and cannot be read"),
    ReasonRow("UPSTREAM_UNAVAILABLE", _UNAVAILABLE, "no server behind the edge answers"),
    ReasonRow(
        "UPSTREAM_TIMEOUT",
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "no answer in time, the outcome is unknown: ask again with the same id",
    ),
    # Users, keys and certificates.
    ReasonRow("USER_NOT_FOUND", _NOT_FOUND, "no such user"),
    ReasonRow("API_KEY_NOT_FOUND", _NOT_FOUND, "no such API key"),
    ReasonRow("LOGIN_SESSION_NOT_FOUND", _NOT_FOUND, "no such log-in session"),
    ReasonRow("CERTIFICATE_NOT_FOUND", _NOT_FOUND, "no such certificate"),
    ReasonRow("CODE_REFUSED", _INVALID, "the code is wrong, used up or too old"),
    ReasonRow("EMAIL_NOT_VERIFIED", _PRECONDITION, "the e-mail address is not verified yet"),
    ReasonRow("PASSWORD_TOO_WEAK", _INVALID, "the password is too easy to guess", ("field",)),
    ReasonRow("SECOND_FACTOR_STATE", _PRECONDITION, "the second factor is on already, or was never begun"),
    ReasonRow("SUB_ACCOUNT_NOT_FOUND", _NOT_FOUND, "no such sub-account"),
    # The ledger.
    ReasonRow("ADDRESS_NOT_LISTED", _PRECONDITION, "the address is not on the account's list"),
    ReasonRow(
        "ADDRESS_COOLING_OFF", _PRECONDITION, "the address was listed a short time ago: wait", retry_after_seconds=60.0
    ),
    ReasonRow("WITHDRAWAL_LIMIT", _PRECONDITION, "more than may be withdrawn within 24 hours", ("limit", "left")),
    ReasonRow("KYC_REQUIRED", _PRECONDITION, "the KYC tier does not allow it"),
    ReasonRow("ACCOUNT_FROZEN", _PRECONDITION, "the account is frozen for withdrawals and transfers"),
    ReasonRow("WITHDRAWALS_STOPPED", _PRECONDITION, "withdrawals are stopped"),
    ReasonRow("WITHDRAWAL_NOT_FOUND", _NOT_FOUND, "the account has no such withdrawal"),
    ReasonRow("WITHDRAWAL_UNDER_WAY", _PRECONDITION, "the withdrawal was handed to the network, or has ended"),
    ReasonRow("UNKNOWN_NETWORK", _NOT_FOUND, "no such network, or not for this asset"),
    ReasonRow("KYC_CASE_NOT_FOUND", _NOT_FOUND, "no such KYC case"),
    ReasonRow("KYC_CASE_STATE", _PRECONDITION, "the KYC case is in a state in which this cannot be done"),
    ReasonRow("RECORD_NOT_FOUND", _NOT_FOUND, "no such correction or incident"),
    ReasonRow("RECORD_STATE", _PRECONDITION, "the record is in a state in which this cannot be done"),
    ReasonRow("FOUR_EYES", _DENIED, "who proposed it cannot approve it"),
    ReasonRow("PRICE_UNAVAILABLE", _PRECONDITION, "no venue has a price that counts"),
    ReasonRow("FEED_NOT_FOUND", _NOT_FOUND, "no feed of this name"),
    ReasonRow("UNKNOWN_CHANNEL", _NOT_FOUND, "no channel of this name"),
    ReasonRow("TOO_MANY_SUBSCRIPTIONS", _EXHAUSTED, "more subscriptions than a connection may have", ("limit",)),
)
