-- depends: runbook-0001-views
-- What other venues' prices come to. The table itself came with the runbooks, empty; market data owns what stands in it.

COMMENT ON TABLE latest_prices IS
    'The reference price of each market, once a second, and when the oldest price in it came from its venue. docs/VENUES.md';

-- How feeds and prices stand, as the instance that runs the feeds wrote it: one row, for the instances that do not.
CREATE TABLE market_data_state (
    one        boolean     PRIMARY KEY CHECK (one),
    state      jsonb       NOT NULL,
    written_at timestamptz NOT NULL
);
COMMENT ON TABLE market_data_state IS 'How the feeds of other venues stand, written by the instance that runs them.';

DO $$
BEGIN
    REVOKE ALL ON market_data_state FROM PUBLIC;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'trading_user') THEN
        REVOKE ALL ON market_data_state FROM trading_user;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'market_data_user') THEN
        GRANT SELECT, INSERT, UPDATE ON latest_prices, market_data_state TO market_data_user;
    END IF;
END $$;
