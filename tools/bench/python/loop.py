"""What a team would write instead of the adapter: consume, PATCH, publish the event with a confirm, acknowledge.

Nothing is tracked: no record, no order within a connection, no second try. Messages are worked on side by side, as many
as the prefetch allows. The first fault ends the process with exit code 1, so that no figure is taken of a loop that fails.
"""

import argparse
import asyncio
import gc
import signal
import sys
import uuid
from datetime import UTC, datetime

import aio_pika
import aiohttp
import orjson
import uvloop
from yarl import URL

BODIES = {value: orjson.dumps({"archived": value}) for value in (True, False)}
KINDS = {True: "archived", False: "unarchived"}
ORIGIN = "/guest-connection-loop"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("amqp", "queue", "exchange", "upstream", "client-id", "client-secret", "requester"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--prefetch", type=int, default=256)
    return parser.parse_args()


async def bearer(session, upstream, client_id, client_secret):
    body = orjson.dumps({"client_id": client_id, "client_secret": client_secret})
    async with session.post(f"{upstream}/oauth2/token", data=body) as answer:
        answer.raise_for_status()
        return "Bearer " + orjson.loads(await answer.read())["access_token"]


def event(command, message, connection, requester, target, sequence):
    """The event as a message: a CloudEvent in structured mode with the attributes and the data of the adapter's."""
    guest, archived = command["guest_organization_id"], command["archived"]
    kind = f"ai.mycreditapp.guest-connection.{KINDS[archived]}.v1"
    key = command.get("idempotency_key") or message.message_id
    command_id, event_id = str(uuid.uuid4()), str(uuid.uuid4())
    correlation_id = message.correlation_id or command_id
    now = datetime.now(UTC)
    body = {
        "specversion": "1.0",
        "id": event_id,
        "source": ORIGIN,
        "type": kind,
        "subject": f"{target}/{guest}",
        "time": now,
        "sequence": f"{sequence:020}",
        "correlationid": correlation_id,
        "datacontenttype": "application/json",
        "data": {
            "guest_connection": connection,
            "command": {
                "command_id": command_id,
                "requester_organization_id": requester,
                "target_organization_id": target,
                "guest_organization_id": guest,
                "archived": archived,
                "idempotency_key": key,
                "state": "succeeded",
                "effective_time": now,
                "attempts": 1,
                "generation": 1,
            },
            "incomplete": False,
        },
    }
    return aio_pika.Message(
        orjson.dumps(body, option=orjson.OPT_UTC_Z),
        content_type="application/cloudevents+json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=event_id,
        correlation_id=correlation_id,
        timestamp=now,
        type=kind,
        app_id="guest-connection-loop",
    )


class Loop:
    def __init__(self, session, exchange, options, ended):
        self.session = session
        self.exchange = exchange
        self.upstream = options.upstream
        self.requester = options.requester
        self.ended = ended
        self.taken = 0

    async def on_message(self, message):
        try:
            await self.work_on(message)
        except Exception as error:
            if not self.ended.done():
                self.ended.set_exception(error)

    async def work_on(self, message):
        self.taken += 1
        sequence = self.taken
        command = orjson.loads(message.body)
        guest, archived = command["guest_organization_id"], command["archived"]
        requester = command.get("requester_organization_id", self.requester)
        target = command.get("target_organization_id", requester)
        headers = {"Requester-Organization-ID": requester, "Target-Organization-ID": target}
        url = URL(f"{self.upstream}/guest-connections/{guest}", encoded=True)
        async with self.session.patch(url, data=BODIES[archived], headers=headers) as answer:
            answer.raise_for_status()
            connection = orjson.loads(await answer.read())
        told = event(command, message, connection, requester, target, sequence)
        await self.exchange.publish(told, f"guest-connection.{KINDS[archived]}.{guest}")
        await message.ack()


async def run(options):
    ended = asyncio.get_running_loop().create_future()

    def end():
        if not ended.done():
            ended.set_result(None)

    def on_close(_connection, error):
        if not ended.done():
            ended.set_exception(error or ConnectionError("the broker closed the connection"))

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end)
    connector = aiohttp.TCPConnector(limit=options.prefetch, keepalive_timeout=60)
    # The API wants these headers and no others.
    common = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(
        connector=connector, headers=common, skip_auto_headers=["Accept-Encoding"], cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        token = await bearer(session, options.upstream, options.client_id, options.client_secret)
        session.headers["Authorization"] = token
        async with await aio_pika.connect(options.amqp) as connection:
            publishing = await connection.channel(publisher_confirms=True, on_return_raises=True)
            exchange = await publishing.get_exchange(options.exchange)
            consuming = await connection.channel(publisher_confirms=False)
            await consuming.set_qos(prefetch_count=options.prefetch)
            queue = await consuming.get_queue(options.queue)
            await queue.consume(Loop(session, exchange, options, ended).on_message)
            connection.close_callbacks.add(on_close)
            print("ready", flush=True)
            await ended


def main():
    # Little of what is made here lies in cycles: looking for them less often saves a tenth.
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    try:
        uvloop.run(run(arguments()))
    except Exception as error:
        # Not its repr, which may hold the token.
        print(f"loop: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
