-- depends: market-data-0001-candles settlement-0001-ledger

-- All candles anew from the trades, for when they cannot be followed on from where they are: `pincex db rebuild-candles`.
-- For the tables' owner alone. Safe at any moment: a writer finds another offset than its own, and begins with the tables again.
CREATE FUNCTION candles_rebuild(OUT candle_count bigint, OUT sequence bigint) LANGUAGE plpgsql AS $$
DECLARE
    here settlement_offset;
BEGIN
    -- Read first: trades that are settled meanwhile lie behind it, and come as events.
    SELECT * INTO here FROM settlement_offset WHERE shard = 0;
    sequence := coalesce(here.sequence, 0);
    -- Built beside the table, so that readers wait for no more than a copy.
    CREATE TEMPORARY TABLE candles_rebuilt ON COMMIT DROP AS
        SELECT t.symbol, 1 AS interval_s, date_bin('1 second', t.created_at, '1970-01-01Z') AS open_time,
            (array_agg(t.price ORDER BY t.sequence, t.place))[1] AS open, max(t.price) AS high, min(t.price) AS low,
            (array_agg(t.price ORDER BY t.sequence DESC, t.place DESC))[1] AS close,
            sum(t.quantity) AS volume, sum(t.notional) AS quote_volume, count(*) AS trade_count, max(t.sequence) AS last_sequence,
            (array_agg(t.quantity ORDER BY t.sequence DESC, t.place DESC))[1] AS last_quantity
        FROM (SELECT *, split_part(id, '-', 2)::int AS place FROM trades) AS t
        WHERE t.sequence <= here.sequence
        GROUP BY 1, 3;
    INSERT INTO candles_rebuilt
        SELECT s.symbol, length_s, date_bin(make_interval(secs => length_s), s.open_time, '1970-01-01Z') AS bin,
            (array_agg(s.open ORDER BY s.open_time))[1], max(s.high), min(s.low),
            (array_agg(s.close ORDER BY s.open_time DESC))[1],
            sum(s.volume), sum(s.quote_volume), sum(s.trade_count)::bigint, max(s.last_sequence),
            (array_agg(s.last_quantity ORDER BY s.open_time DESC))[1]
        FROM candles_rebuilt AS s CROSS JOIN unnest(ARRAY[60, 300, 900, 3600, 14400, 86400]) AS length_s
        GROUP BY 1, 2, 3;
    ALTER TABLE candles DISABLE TRIGGER candles_are_kept;
    TRUNCATE candles, market_data_offset;
    ALTER TABLE candles ENABLE TRIGGER candles_are_kept;
    INSERT INTO candles (symbol, interval_s, open_time, open, high, low, close, volume, quote_volume, trade_count, sequence,
            last_quantity)
        SELECT * FROM candles_rebuilt;
    GET DIAGNOSTICS candle_count = ROW_COUNT;
    INSERT INTO market_data_offset (shard, sequence, resume_token, event_time_ns)
        SELECT here.shard, here.sequence, here.resume_token, here.event_time_ns WHERE here.sequence > 0;
END $$;
COMMENT ON FUNCTION candles_rebuild IS 'Candles of all intervals from the table trades, up to what settlement has; the rest comes from the events.';
REVOKE ALL ON FUNCTION candles_rebuild FROM PUBLIC;
