-- depends: settlement-0001-ledger services-0001-access

-- Candles of every interval, built from the engine's events by market data's one writer.
-- Owned by the role that migrates. market_data_user adds and lets the newest grow; nothing that is written shrinks or goes.

-- How far the candles are: in the same transaction as the rows it stands for.
CREATE TABLE market_data_offset (
    shard         integer     PRIMARY KEY CHECK (shard >= 0),
    sequence      bigint      NOT NULL CHECK (sequence >= 0),
    resume_token  text        NOT NULL,
    event_time_ns bigint      NOT NULL,
    written_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON COLUMN market_data_offset.event_time_ns IS
    'The engine''s time there: candles that end by then are closed, and no trade can be added to them.';

CREATE TABLE candles (
    symbol        text        NOT NULL,
    -- Length in seconds; intervals begin at whole multiples of it since 1970.
    interval_s    integer     NOT NULL CHECK (interval_s IN (1, 60, 300, 900, 3600, 14400, 86400)),
    open_time     timestamptz NOT NULL,
    open          numeric     NOT NULL,
    high          numeric     NOT NULL,
    low           numeric     NOT NULL,
    close         numeric     NOT NULL,
    volume        numeric     NOT NULL CHECK (volume > 0),
    quote_volume  numeric     NOT NULL CHECK (quote_volume > 0),
    trade_count   bigint      NOT NULL CHECK (trade_count > 0),
    -- Of the last trade, whose quantity a ticker shows.
    sequence      bigint      NOT NULL,
    last_quantity numeric     NOT NULL,
    PRIMARY KEY (symbol, interval_s, open_time),
    CHECK (mod(extract(epoch FROM open_time), interval_s) = 0),
    CHECK (low <= least(open, close) AND high >= greatest(open, close))
);
CREATE INDEX candles_open ON candles (interval_s, open_time);

CREATE FUNCTION candles_only_grow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'UPDATE' THEN
        RAISE EXCEPTION 'candles are kept' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF (new.symbol, new.interval_s, new.open_time, new.open) IS DISTINCT FROM (old.symbol, old.interval_s, old.open_time, old.open)
        OR new.high < old.high OR new.low > old.low OR new.volume <= old.volume OR new.quote_volume <= old.quote_volume
        OR new.trade_count <= old.trade_count OR new.sequence < old.sequence
        OR extract(epoch FROM old.open_time) + old.interval_s <= (SELECT event_time_ns / 1000000000 FROM market_data_offset WHERE shard = 0)
    THEN
        RAISE EXCEPTION 'the candle % % % can only get more trades, until it is closed', old.symbol, old.interval_s, old.open_time
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN new;
END $$;
CREATE TRIGGER candles_only_grow BEFORE UPDATE ON candles FOR EACH ROW EXECUTE FUNCTION candles_only_grow();
CREATE TRIGGER candles_are_kept BEFORE DELETE OR TRUNCATE ON candles FOR EACH STATEMENT EXECUTE FUNCTION candles_only_grow();
COMMENT ON FUNCTION candles_only_grow IS 'A candle is never corrected: trades come at its end, and none once the engine''s time has passed it.';

DO $$
BEGIN
    REVOKE ALL ON market_data_offset, candles FROM PUBLIC;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'trading_user') THEN
        REVOKE ALL ON market_data_offset, candles FROM trading_user;
        -- People who look for themselves, as the runbooks do.
        GRANT SELECT ON candles TO trading_user;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'market_data_user') THEN
        GRANT SELECT, INSERT ON market_data_offset, candles TO market_data_user;
        GRANT UPDATE (sequence, resume_token, event_time_ns, written_at) ON market_data_offset TO market_data_user;
        GRANT UPDATE (high, low, close, volume, quote_volume, trade_count, sequence, last_quantity) ON candles TO market_data_user;
        -- The public part of the tape: whose trades they are is not market data's to know.
        GRANT SELECT (id, sequence, symbol, price, quantity, taker_side, created_at) ON trades TO market_data_user;
    END IF;
END $$;
