-- depends: audit-0001-records auth-0001-identity
-- Money that comes in, frozen accounts, and the simulated network. Owned by the role that migrates.

-- Where reports of a network were read up to: in the same transaction as what they changed.
CREATE TABLE wallet_cursors (
    network text   PRIMARY KEY,
    cursor  bigint NOT NULL CHECK (cursor >= 0)
);

CREATE TABLE wallet_deposit_addresses (
    network    text        NOT NULL,
    account    text        NOT NULL,
    asset      text        NOT NULL,
    address    text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (network, account, asset),
    UNIQUE (network, address)
);

-- One row for each time that a transaction comes into the chain. Its status moves forward only:
-- SEEN -> CONFIRMED -> CREDITED -> REVERSED, SEEN -> ORPHANED, CONFIRMED -> ORPHANED while the engine was not asked.
CREATE TABLE wallet_deposits (
    deposit_id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    network                text        NOT NULL,
    transaction_id         text        NOT NULL,
    output                 integer     NOT NULL CHECK (output >= 0),
    appearance             integer     NOT NULL CHECK (appearance > 0),
    account                text        NOT NULL,
    asset                  text        NOT NULL,
    decimals               smallint    NOT NULL,
    amount                 bigint      NOT NULL CHECK (amount > 0),
    address                text        NOT NULL,
    status                 text        NOT NULL CHECK (status IN ('SEEN', 'CONFIRMED', 'CREDITED', 'ORPHANED', 'REVERSED')),
    confirmations          integer     NOT NULL CHECK (confirmations >= 0),
    required_confirmations integer     NOT NULL CHECK (required_confirmations > 0),
    seen_at                timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The network took it back. Of a deposit that the engine was asked to credit this is settled after the credit.
    vanished               boolean     NOT NULL DEFAULT false,
    -- Written before the engine is asked for the first time.
    credit_asked_at        timestamptz,
    -- Of the command that credited the account; made_good has one of its own.
    sequence               bigint,
    -- How much of `amount` makes good a loss of an earlier appearance, and goes to the exchange, not to the account.
    made_good              bigint      NOT NULL DEFAULT 0 CHECK (made_good BETWEEN 0 AND amount),
    credited_at            timestamptz,
    -- What is next for a REVERSED one: HOLD, SETTLE, LOSS, DONE. Each attempt at a hold has an id and an amount of its own.
    reversal               text        CHECK (reversal IN ('HOLD', 'SETTLE', 'LOSS', 'DONE')),
    hold_attempt           integer     NOT NULL DEFAULT 0,
    hold_amount            bigint      NOT NULL DEFAULT 0,
    recovered              bigint      NOT NULL DEFAULT 0 CHECK (recovered BETWEEN 0 AND amount),
    lost                   bigint      NOT NULL DEFAULT 0 CHECK (lost BETWEEN 0 AND amount),
    -- Why the last attempt at the next step failed, and when it is tried again.
    problem                text,
    attempts               integer     NOT NULL DEFAULT 0,
    next_at                timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (network, transaction_id, output, appearance),
    CHECK (status NOT IN ('CREDITED', 'REVERSED') OR (sequence IS NOT NULL AND credited_at IS NOT NULL)),
    CHECK (status <> 'ORPHANED' OR credit_asked_at IS NULL),
    CHECK ((status = 'REVERSED') = (reversal IS NOT NULL)),
    CHECK (reversal IS DISTINCT FROM 'DONE' OR recovered + lost = amount)
);
CREATE INDEX wallet_deposits_account ON wallet_deposits (account, deposit_id);
-- What the worker drives on, and what status and metrics count.
CREATE INDEX wallet_deposits_under_way ON wallet_deposits (next_at)
    WHERE status IN ('SEEN', 'CONFIRMED') OR (status = 'REVERSED' AND reversal <> 'DONE') OR (status = 'CREDITED' AND vanished);

-- What came to an address that nobody was given, or in an asset of which the address is not.
CREATE TABLE wallet_unassigned (
    network        text        NOT NULL,
    transaction_id text        NOT NULL,
    output         integer     NOT NULL,
    appearance     integer     NOT NULL,
    address        text        NOT NULL,
    asset          text        NOT NULL,
    amount         bigint      NOT NULL,
    vanished       boolean     NOT NULL DEFAULT false,
    seen_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (network, transaction_id, output, appearance)
);

CREATE TABLE wallet_freezes (
    account    text        PRIMARY KEY,
    frozen     boolean     NOT NULL,
    reason     text        NOT NULL,
    changed_by text        NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The simulated network. Whoever changes it locks its one row of sim_chain first, so numbers of reports rise in the
-- order of commits.
CREATE TABLE sim_chain (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    height   bigint  NOT NULL CHECK (height >= 0),
    reports  bigint  NOT NULL CHECK (reports >= 0)
);
INSERT INTO sim_chain (height, reports) VALUES (0, 0);

CREATE TABLE sim_addresses (
    address text PRIMARY KEY,
    account text NOT NULL,
    asset   text NOT NULL,
    UNIQUE (account, asset)
);

CREATE TABLE sim_incoming (
    transaction_id text    NOT NULL,
    output         integer NOT NULL,
    appearance     integer NOT NULL,
    address        text    NOT NULL,
    asset          text    NOT NULL,
    amount         bigint  NOT NULL CHECK (amount > 0),
    -- Of its block; NULL while it waits for one.
    height         bigint,
    vanished       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (transaction_id, output)
);
CREATE INDEX sim_incoming_height ON sim_incoming (height);

CREATE TABLE sim_sends (
    withdrawal_id  text   PRIMARY KEY,
    asset          text   NOT NULL,
    address        text   NOT NULL,
    amount         bigint NOT NULL CHECK (amount > 0),
    transaction_id text   NOT NULL UNIQUE,
    height         bigint,
    -- Why it is never carried out.
    refused        text
);

CREATE TABLE sim_reports (
    number         bigint  PRIMARY KEY,
    kind           text    NOT NULL,
    transaction_id text    NOT NULL,
    output         integer NOT NULL,
    appearance     integer NOT NULL,
    address        text    NOT NULL,
    asset          text    NOT NULL,
    amount         bigint  NOT NULL,
    confirmations  integer NOT NULL
);

-- Reports that are late: they get their number when the chain reaches the height.
CREATE TABLE sim_late_reports (
    late_id        bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    due_height     bigint  NOT NULL,
    kind           text    NOT NULL,
    transaction_id text    NOT NULL,
    output         integer NOT NULL,
    appearance     integer NOT NULL,
    address        text    NOT NULL,
    asset          text    NOT NULL,
    amount         bigint  NOT NULL,
    confirmations  integer NOT NULL
);

DO $$
DECLARE
    kept constant text := 'wallet_cursors, wallet_deposit_addresses, wallet_deposits, wallet_unassigned, wallet_freezes';
    simulated constant text := 'sim_chain, sim_addresses, sim_incoming, sim_sends, sim_reports, sim_late_reports';
BEGIN
    EXECUTE 'REVOKE ALL ON ' || kept || ', ' || simulated || ' FROM PUBLIC';
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'trading_user') THEN
        EXECUTE 'REVOKE ALL ON ' || kept || ', ' || simulated || ' FROM trading_user';
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wallet_user') THEN
        -- Nothing of the wallet's own is ever deleted.
        EXECUTE 'GRANT SELECT, INSERT, UPDATE ON ' || kept || ' TO wallet_user';
        EXECUTE 'GRANT SELECT, INSERT, UPDATE, DELETE ON ' || simulated || ' TO wallet_user';
        GRANT EXECUTE ON FUNCTION audit_append(uuid, timestamptz, text, text, text, text, text, text, text, text, text, text,
            text) TO wallet_user;
        -- As every server that verifies tokens.
        GRANT SELECT ON auth_revocations TO wallet_user;
        GRANT SELECT (key_id, public_jwk, created_at, signs_from, retired_at) ON auth_signing_keys TO wallet_user;
    END IF;
END $$;
