-- depends: audit-0001-records
-- The ledger and the projections, written by settlement alone from the engine's events.
-- Owned by the role that migrates. settlement_user adds; nobody changes or removes a posting.

-- How far settlement is: in the same transaction as the rows it stands for.
CREATE TABLE settlement_offset (
    shard         integer     PRIMARY KEY CHECK (shard >= 0),
    sequence      bigint      NOT NULL CHECK (sequence >= 0),
    resume_token  text        NOT NULL,
    posting_id    bigint      NOT NULL CHECK (posting_id >= 0),
    trade_count   bigint      NOT NULL CHECK (trade_count >= 0),
    event_time_ns bigint      NOT NULL,
    settled_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON COLUMN settlement_offset.resume_token IS
    'Names history and frame: in another history the engine refuses it, and settlement stops.';

CREATE TABLE assets (
    code     text    PRIMARY KEY,
    decimals integer NOT NULL CHECK (decimals BETWEEN 0 AND 12)
);
COMMENT ON TABLE assets IS 'Amounts of the ledger are whole numbers of 10^-decimals.';

CREATE TABLE markets (
    symbol      text    PRIMARY KEY,
    base_asset  text    NOT NULL REFERENCES assets,
    quote_asset text    NOT NULL REFERENCES assets,
    mode        text    NOT NULL,
    sequence    bigint  NOT NULL
);

CREATE TABLE ledger_accounts (
    account_id integer PRIMARY KEY CHECK (account_id > 0),
    account    text    NOT NULL UNIQUE
);

CREATE TABLE ledger_kinds (
    kind_id   smallint PRIMARY KEY,
    kind      text     NOT NULL UNIQUE,
    -- Whether its balance is what the exchange has (debit) or owes (credit).
    is_debit  boolean  NOT NULL
);
INSERT INTO ledger_kinds VALUES
    (1, 'available', false), (2, 'held', false), (3, 'fees', false), (4, 'custody', true), (5, 'suspense', true);

CREATE TABLE ledger_causes (
    cause_id smallint PRIMARY KEY,
    cause    text     NOT NULL UNIQUE
);
INSERT INTO ledger_causes VALUES
    (1, 'trade'), (2, 'fee'), (3, 'hold'), (4, 'release'), (5, 'deposit'), (6, 'withdrawal'), (7, 'transfer'), (8, 'loss');

-- One line of the ledger. `amount` is a credit where it is positive and a debit where it is negative, so the lines of
-- each transaction sum to zero in each asset; `balance_after` is as people read it: what is owed, or what is there.
CREATE TABLE ledger_lines (
    posting_id     bigint   NOT NULL,
    -- The engine's sequence; of a loss, minus the number of the loss.
    transaction_id bigint   NOT NULL,
    account_id     integer  NOT NULL,
    asset          text     NOT NULL,
    kind_id        smallint NOT NULL,
    cause_id       smallint NOT NULL,
    amount         bigint NOT NULL CHECK (amount <> 0),
    balance_after  bigint NOT NULL,
    reference      text     NOT NULL,
    event_time_ns  bigint   NOT NULL,
    -- Custody alone may be overdrawn: money credited by hand that left by a network. That is an incident, and no reason
    -- to leave the engine's record behind.
    CHECK (balance_after >= 0 OR kind_id = 4),
    PRIMARY KEY (posting_id)
);
-- Of a user account the times never fall: they are the engine's.
CREATE INDEX ledger_lines_account ON ledger_lines (account_id, asset, event_time_ns, posting_id);
CREATE INDEX ledger_lines_transaction ON ledger_lines (transaction_id);

CREATE FUNCTION ledger_lines_balance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    broken record;
BEGIN
    SELECT transaction_id, asset, sum(amount) AS total INTO broken
    FROM added GROUP BY transaction_id, asset HAVING sum(amount) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transaction % does not balance: % %', broken.transaction_id, broken.total, broken.asset
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_lines_balance AFTER INSERT ON ledger_lines
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ledger_lines_balance();
COMMENT ON FUNCTION ledger_lines_balance IS 'A statement adds whole transactions, each of which sums to zero in each asset.';

CREATE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER ledger_lines_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_lines
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();

-- What stands on each account now: the sum of its lines.
CREATE TABLE ledger_balances (
    account_id integer        NOT NULL,
    asset      text           NOT NULL,
    kind_id    smallint       NOT NULL,
    amount     bigint NOT NULL CHECK (amount >= 0 OR kind_id = 4),
    PRIMARY KEY (account_id, asset, kind_id)
);

-- Losses of custody that no user pays for, numbered for their transactions.
CREATE TABLE ledger_losses (
    loss_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id   text   NOT NULL UNIQUE,
    request_hash bytea  NOT NULL,
    posting_id   bigint NOT NULL,
    reason       text   NOT NULL,
    recorded_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The last comparison with the engine in which all agreed.
CREATE TABLE settlement_reconciled (
    shard         integer     PRIMARY KEY CHECK (shard >= 0),
    sequence      bigint      NOT NULL CHECK (sequence >= 0),
    trade_count   bigint      NOT NULL CHECK (trade_count >= 0),
    reconciled_at timestamptz NOT NULL
);

-- What did not agree. While one is open no withdrawal goes out.
CREATE TABLE settlement_incidents (
    incident_id bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    opened_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    sequence    bigint      NOT NULL,
    breaks      jsonb       NOT NULL,
    -- Of what does not agree, whatever the amounts: the same thing is not opened twice.
    fingerprint bytea       NOT NULL,
    resolved_at timestamptz,
    resolution  text,
    resolved_by text,
    CHECK ((resolved_at IS NULL) = (resolution IS NULL) AND (resolved_at IS NULL) = (resolved_by IS NULL))
);
CREATE UNIQUE INDEX settlement_incidents_open ON settlement_incidents (fingerprint) WHERE resolved_at IS NULL;

-- Money between an account and `$suspense`, by an engine command that one proposes and another approves.
CREATE TABLE settlement_corrections (
    correction_id   bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id      text        NOT NULL UNIQUE,
    request_hash    bytea       NOT NULL,
    account         text        NOT NULL,
    asset           text        NOT NULL REFERENCES assets,
    -- What the account gets; negative: what is taken from it.
    amount          bigint      NOT NULL CHECK (amount <> 0),
    reason          text        NOT NULL,
    status          text        NOT NULL DEFAULT 'PROPOSED'
        CHECK (status IN ('PROPOSED', 'APPROVED', 'CARRIED_OUT', 'REJECTED')),
    proposed_by     text        NOT NULL,
    proposed_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    decided_by      text,
    decided_at      timestamptz,
    decision_reason text,
    sequence        bigint,
    problem         text,
    -- When the engine was last asked without its answer being known.
    asked_at        timestamptz,
    CHECK ((status = 'PROPOSED') = (decided_by IS NULL) AND (decided_by IS NULL) = (decided_at IS NULL)),
    CHECK (status NOT IN ('APPROVED', 'CARRIED_OUT') OR decided_by <> proposed_by),
    CHECK ((status = 'CARRIED_OUT') = (sequence IS NOT NULL))
);
CREATE INDEX settlement_corrections_approved ON settlement_corrections (correction_id) WHERE status = 'APPROVED';

-- What the runbooks ask: one row an order that was accepted; statuses PENDING, PARTIAL, FILLED, CANCELLED.
CREATE TABLE orders (
    id               bigint      PRIMARY KEY,
    user_id          text        NOT NULL,
    client_order_id  text        NOT NULL,
    symbol           text        NOT NULL,
    side             text        NOT NULL CHECK (side IN ('BUY', 'SELL')),
    order_type       text        NOT NULL,
    time_in_force    text        NOT NULL,
    quantity         numeric     NOT NULL,
    price            numeric,
    stop_price       numeric,
    filled_quantity  numeric     NOT NULL DEFAULT 0,
    open_quantity    numeric     NOT NULL,
    status           text        NOT NULL CHECK (status IN ('PENDING', 'PARTIAL', 'FILLED', 'CANCELLED')),
    cancel_reason    text,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    updated_sequence bigint      NOT NULL
);
CREATE INDEX orders_user ON orders (user_id, id DESC);
CREATE INDEX orders_created ON orders (created_at);
CREATE INDEX orders_open ON orders (id) WHERE status IN ('PENDING', 'PARTIAL');

CREATE TABLE trades (
    id             text        PRIMARY KEY,
    sequence       bigint      NOT NULL,
    symbol         text        NOT NULL,
    price          numeric     NOT NULL,
    quantity       numeric     NOT NULL,
    notional       numeric     NOT NULL,
    taker_side     text        NOT NULL CHECK (taker_side IN ('BUY', 'SELL')),
    maker_order_id bigint      NOT NULL,
    taker_order_id bigint      NOT NULL,
    maker_user_id  text        NOT NULL,
    taker_user_id  text        NOT NULL,
    maker_fee      numeric     NOT NULL,
    taker_fee      numeric     NOT NULL,
    created_at     timestamptz NOT NULL
);
CREATE INDEX trades_sequence ON trades (sequence);
CREATE INDEX trades_symbol ON trades (symbol, created_at);
CREATE INDEX trades_maker_order ON trades (maker_order_id);
CREATE INDEX trades_taker_order ON trades (taker_order_id);

-- Both sides of each trade, by order.
CREATE VIEW fills AS
    SELECT id AS trade_id, maker_order_id AS order_id, maker_user_id AS user_id, symbol,
        CASE taker_side WHEN 'BUY' THEN 'SELL' ELSE 'BUY' END AS side, price, quantity, notional, maker_fee AS fee,
        true AS is_maker, sequence, created_at
    FROM trades
    UNION ALL
    SELECT id, taker_order_id, taker_user_id, symbol, taker_side, price, quantity, notional, taker_fee, false, sequence,
        created_at
    FROM trades;

-- For people and for queries: names instead of numbers, amounts with their decimals.
CREATE VIEW ledger_postings AS
    SELECT l.posting_id, greatest(l.transaction_id, 0) AS sequence, l.transaction_id, a.account, l.asset, k.kind,
        round(CASE WHEN k.is_debit THEN -l.amount ELSE l.amount END / (10::numeric ^ s.decimals), s.decimals) AS amount,
        round(l.balance_after / (10::numeric ^ s.decimals), s.decimals) AS balance_after, c.cause, l.reference,
        to_timestamp(l.event_time_ns / 1e9) AS created_at
    FROM ledger_lines l
    JOIN ledger_accounts a USING (account_id)
    JOIN ledger_kinds k USING (kind_id)
    JOIN ledger_causes c USING (cause_id)
    JOIN assets s ON s.code = l.asset;

CREATE VIEW balances AS
    SELECT a.account AS user_id, b.asset,
        round(coalesce(sum(b.amount) FILTER (WHERE b.kind_id <> 2), 0) / (10::numeric ^ s.decimals), s.decimals) AS available,
        round(coalesce(sum(b.amount) FILTER (WHERE b.kind_id = 2), 0) / (10::numeric ^ s.decimals), s.decimals) AS held
    FROM ledger_balances b
    JOIN ledger_accounts a USING (account_id)
    JOIN assets s ON s.code = b.asset
    WHERE b.kind_id IN (1, 2, 3)
    GROUP BY a.account, b.asset, s.decimals;
COMMENT ON VIEW balances IS 'What the exchange owes to each account, as the engine would say it at the sequence of settlement_offset.';

DO $$
DECLARE
    ours constant text := 'settlement_offset, assets, markets, ledger_accounts, ledger_kinds, ledger_causes, ledger_lines, '
        'ledger_balances, ledger_losses, settlement_reconciled, settlement_incidents, settlement_corrections, orders, trades, fills, ledger_postings, balances';
BEGIN
    EXECUTE 'REVOKE ALL ON ' || ours || ' FROM PUBLIC';
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'trading_user') THEN
        EXECUTE 'REVOKE ALL ON ' || ours || ' FROM trading_user';
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'settlement_user') THEN
        EXECUTE 'GRANT SELECT ON ' || ours || ' TO settlement_user';
        GRANT INSERT ON ledger_accounts, ledger_lines, ledger_losses, trades, assets TO settlement_user;
        GRANT INSERT, UPDATE ON settlement_offset, markets, ledger_balances, orders, settlement_reconciled TO settlement_user;
        GRANT INSERT ON settlement_incidents, settlement_corrections TO settlement_user;
        GRANT UPDATE (resolved_at, resolution, resolved_by) ON settlement_incidents TO settlement_user;
        GRANT UPDATE (status, decided_by, decided_at, decision_reason, sequence, problem, asked_at) ON settlement_corrections
            TO settlement_user;
        GRANT EXECUTE ON FUNCTION audit_append(uuid, timestamptz, text, text, text, text, text, text, text, text, text, text,
            text) TO settlement_user;
        -- As every server that verifies tokens.
        GRANT SELECT ON auth_revocations TO settlement_user;
        GRANT SELECT (key_id, public_jwk, created_at, signs_from, retired_at) ON auth_signing_keys TO settlement_user;
    END IF;
END $$;
