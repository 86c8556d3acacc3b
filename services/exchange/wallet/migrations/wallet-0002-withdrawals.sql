-- depends: wallet-0001-deposits
-- Money that goes out: withdrawals, the addresses that they may go to, the operator's stop; and transfers between accounts.
-- Owned by the role that migrates. Rows are never removed; wallet_user moves their state forward.

-- Addresses that an account may withdraw to. One that was taken off the list stays, for the record.
CREATE TABLE withdrawal_addresses (
    number     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    address_id text        NOT NULL UNIQUE,
    account    text        NOT NULL,
    asset      text        NOT NULL,
    network    text        NOT NULL,
    address    text        NOT NULL,
    label      text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    usable_at  timestamptz NOT NULL,
    removed_at timestamptz
);
CREATE UNIQUE INDEX withdrawal_addresses_listed ON withdrawal_addresses (account, asset, network, address)
    WHERE removed_at IS NULL;

CREATE TABLE withdrawals (
    number                 bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    withdrawal_id          text        NOT NULL UNIQUE,
    account                text        NOT NULL,
    -- Whose limits it counts against: a user, or account:<account> where none is known.
    owner                  text        NOT NULL,
    request_id             text        NOT NULL,
    request_hash           bytea       NOT NULL,
    asset                  text        NOT NULL,
    decimals               smallint    NOT NULL CHECK (decimals BETWEEN 0 AND 12),
    -- Smallest units. What arrives, and what it costs: both are held.
    amount                 bigint      NOT NULL CHECK (amount > 0),
    fee                    bigint      NOT NULL CHECK (fee >= 0),
    network                text        NOT NULL,
    address                text        NOT NULL,
    status                 text        NOT NULL DEFAULT 'REQUESTED' CHECK (status IN ('REQUESTED', 'AWAITING_APPROVAL',
        'APPROVED', 'SENDING', 'BROADCAST', 'SETTLED', 'WITHDRAWAL_CANCELLED', 'REJECTED', 'RETURNED')),
    ending                 text        CHECK (ending IN ('SETTLED', 'WITHDRAWAL_CANCELLED', 'REJECTED', 'RETURNED')),
    problem                text        NOT NULL DEFAULT '',
    -- Of the contract's reasons, where the hold was refused: a repeat is answered the same.
    refusal                text        NOT NULL DEFAULT '',
    transaction_id         text        NOT NULL DEFAULT '',
    confirmations          integer     NOT NULL DEFAULT 0 CHECK (confirmations >= 0),
    required_confirmations integer     NOT NULL CHECK (required_confirmations >= 0),
    decided_by             text        NOT NULL DEFAULT '',
    decided_at             timestamptz,
    decision_reason        text        NOT NULL DEFAULT '',
    hold_sequence          bigint      NOT NULL DEFAULT 0,
    final_sequence         bigint      NOT NULL DEFAULT 0,
    fee_sequence           bigint      NOT NULL DEFAULT 0,
    -- When the engine was first told to end the hold, and to take the fee.
    ending_asked_at        timestamptz,
    fee_asked_at           timestamptz,
    created_at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (account, request_id),
    -- An end that was decided is the one that comes.
    CHECK (status NOT IN ('SETTLED', 'WITHDRAWAL_CANCELLED', 'RETURNED') OR status = ending),
    CHECK (status NOT IN ('SENDING', 'BROADCAST', 'SETTLED', 'RETURNED') OR decided_by <> '')
);
COMMENT ON COLUMN withdrawals.ending IS
    'Decided, and carried out as soon as the engine has settled or released the hold; then status says it too.';
CREATE INDEX withdrawals_account ON withdrawals (account, number DESC);
CREATE INDEX withdrawals_owner ON withdrawals (owner, asset, created_at);
CREATE INDEX withdrawals_open ON withdrawals (number)
    WHERE status IN ('REQUESTED', 'AWAITING_APPROVAL', 'APPROVED', 'SENDING', 'BROADCAST');

CREATE TABLE wallet_transfers (
    number       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transfer_id  text        NOT NULL UNIQUE,
    account      text        NOT NULL,
    to_account   text        NOT NULL,
    request_id   text        NOT NULL,
    request_hash bytea       NOT NULL,
    asset        text        NOT NULL,
    decimals     smallint    NOT NULL CHECK (decimals BETWEEN 0 AND 12),
    amount       bigint      NOT NULL CHECK (amount > 0),
    status       text        NOT NULL DEFAULT 'REQUESTED' CHECK (status IN ('REQUESTED', 'DONE', 'REFUSED')),
    refusal      text        NOT NULL DEFAULT '',
    problem      text        NOT NULL DEFAULT '',
    sequence     bigint      NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (account, request_id),
    CHECK (account <> to_account),
    CHECK ((status = 'REFUSED') = (refusal <> ''))
);
CREATE INDEX wallet_transfers_account ON wallet_transfers (account, number DESC);
CREATE INDEX wallet_transfers_received ON wallet_transfers (to_account, number DESC) WHERE status = 'DONE';
CREATE INDEX wallet_transfers_open ON wallet_transfers (number) WHERE status = 'REQUESTED';

-- The operator's stop: one row, which is locked while a withdrawal is handed to the network.
CREATE TABLE withdrawal_stop (
    only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    stopped    boolean     NOT NULL,
    reason     text        NOT NULL,
    changed_by text        NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO withdrawal_stop (stopped, reason, changed_by) VALUES (false, 'never stopped', 'migration');

-- A state moves forward, what was asked for stays as it was, and an end that was decided is not decided again.
CREATE FUNCTION withdrawals_forward() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    steps constant text[] := ARRAY['REQUESTED', 'AWAITING_APPROVAL', 'APPROVED', 'SENDING', 'BROADCAST'];
    was constant integer := array_position(steps, OLD.status);
    now constant integer := coalesce(array_position(steps, NEW.status), 6);
BEGIN
    IF was IS NULL OR now < was THEN
        RAISE EXCEPTION 'a withdrawal does not go from % to %', OLD.status, NEW.status;
    END IF;
    IF (NEW.withdrawal_id, NEW.account, NEW.owner, NEW.request_id, NEW.request_hash, NEW.asset, NEW.decimals, NEW.amount, NEW.fee,
        NEW.network, NEW.address, NEW.created_at)
        IS DISTINCT FROM (OLD.withdrawal_id, OLD.account, OLD.owner, OLD.request_id, OLD.request_hash, OLD.asset, OLD.decimals,
        OLD.amount, OLD.fee, OLD.network, OLD.address, OLD.created_at)
        OR (OLD.ending IS NOT NULL AND NEW.ending IS DISTINCT FROM OLD.ending)
    THEN
        RAISE EXCEPTION 'what a withdrawal was asked for, and how it ends, is not changed';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER withdrawals_forward BEFORE UPDATE ON withdrawals FOR EACH ROW EXECUTE FUNCTION withdrawals_forward();

DO $$
DECLARE
    ours constant text := 'withdrawal_addresses, withdrawals, wallet_transfers, withdrawal_stop';
BEGIN
    EXECUTE 'REVOKE ALL ON ' || ours || ' FROM PUBLIC';
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'trading_user') THEN
        EXECUTE 'REVOKE ALL ON ' || ours || ' FROM trading_user';
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wallet_user') THEN
        EXECUTE 'GRANT SELECT ON ' || ours || ' TO wallet_user';
        GRANT INSERT ON withdrawal_addresses, withdrawals, wallet_transfers TO wallet_user;
        GRANT UPDATE (label, removed_at) ON withdrawal_addresses TO wallet_user;
        GRANT UPDATE (status, ending, problem, refusal, transaction_id, confirmations, decided_by, decided_at, decision_reason,
            hold_sequence, final_sequence, fee_sequence, ending_asked_at, fee_asked_at, updated_at) ON withdrawals TO wallet_user;
        GRANT UPDATE (status, refusal, problem, sequence, updated_at) ON wallet_transfers TO wallet_user;
        GRANT UPDATE (stopped, reason, changed_by, changed_at) ON withdrawal_stop TO wallet_user;
    END IF;
END $$;
