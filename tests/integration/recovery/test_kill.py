"""SIGKILL under load: nothing that was answered is lost, nothing happens twice."""

from tests.integration.recovery.engine_process import engine_on
from tests.integration.recovery.load import Load
from tests.integration.recovery.proof import prove
from tests.integration.recovery.rounds import kill_rounds

ROUNDS = 3


async def test_kills_under_load_lose_nothing_and_double_nothing(database, free_port, seed):
    async with engine_on(database, free_port) as engine:
        load = Load(engine, seed, pause_s=0.004)
        await load.start()
        done = await kill_rounds(engine, load, ROUNDS, seed)
        await load.stop()
        unanswered = len(load.unanswered)
        proved = await prove(engine, load)
        assert load.session.reconnects >= 1
        print(done, proved, unanswered, load.failures)
        assert proved.epochs >= ROUNDS + 1
        assert proved.trades > 0
