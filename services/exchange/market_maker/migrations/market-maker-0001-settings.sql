-- depends: audit-0001-records
-- What the market maker shall do, and what it has done: written by market_maker_user alone.

-- The one switch. `revision` grows with every change of settings, so that who changed them can wait until they are followed.
CREATE TABLE market_maker_switch (
    one_row  boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    enabled  boolean NOT NULL,
    revision bigint  NOT NULL DEFAULT 0 CHECK (revision >= 0)
);

CREATE TABLE market_maker_markets (
    symbol         text    PRIMARY KEY,
    enabled        boolean NOT NULL,
    -- Fractions of the reference price.
    min_spread     numeric NOT NULL CHECK (min_spread >= 0),
    max_spread     numeric NOT NULL CHECK (max_spread <= 1),
    levels         integer NOT NULL CHECK (levels BETWEEN 1 AND 20),
    level_quantity numeric NOT NULL CHECK (level_quantity > 0),
    max_inventory  numeric NOT NULL CHECK (max_inventory >= 0),
    max_daily_loss numeric NOT NULL CHECK (max_daily_loss >= 0),
    -- How often an operator has let it quote: each time the count of losses begins anew.
    allowance      bigint  NOT NULL DEFAULT 0,
    CHECK (min_spread <= max_spread)
);

-- Sums over the market maker's own fills, and how far they go: `resume_token` is of its stream of order events, and is written
-- in the transaction of the sums.
CREATE TABLE market_maker_positions (
    symbol    text    PRIMARY KEY,
    inventory numeric NOT NULL,
    cash      numeric NOT NULL,
    day       date,
    day_value numeric NOT NULL,
    loss_base numeric NOT NULL,
    stopped   boolean NOT NULL,
    allowance bigint  NOT NULL
);

-- Of the instance that quotes. `revision` is that of the settings which the reported quotes follow.
CREATE TABLE market_maker_progress (
    one_row      boolean     PRIMARY KEY DEFAULT true CHECK (one_row),
    account      text        NOT NULL DEFAULT '',
    resume_token text        NOT NULL DEFAULT '',
    connected    boolean     NOT NULL DEFAULT false,
    revision     bigint      NOT NULL DEFAULT 0,
    reported_at  timestamptz NOT NULL DEFAULT to_timestamp(0)
);
INSERT INTO market_maker_progress DEFAULT VALUES;

CREATE TABLE market_maker_reports (
    symbol          text    PRIMARY KEY,
    state           text    NOT NULL,
    reference_price numeric,
    bid_price       numeric,
    ask_price       numeric,
    open_orders     integer NOT NULL,
    profit_today    numeric NOT NULL
);

DO $$
DECLARE
    ours constant text := 'market_maker_switch, market_maker_markets, market_maker_positions, market_maker_progress, '
        'market_maker_reports';
BEGIN
    EXECUTE 'REVOKE ALL ON ' || ours || ' FROM PUBLIC';
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'trading_user') THEN
        EXECUTE 'REVOKE ALL ON ' || ours || ' FROM trading_user';
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'market_maker_user') THEN
        EXECUTE 'GRANT SELECT, INSERT, UPDATE ON ' || ours || ' TO market_maker_user';
    END IF;
END $$;
