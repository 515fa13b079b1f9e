"""The oracle: an independent consumer that writes every delivery to a file before it acknowledges it.

    oracle.py AMQP_URL QUEUE FILE

One JSON object per line: what arrived, in order of arrival. Ends on SIGTERM.
"""
import json
import os
import signal
import sys
import time

import pika

ACK_EVERY = 100


def main(url, queue, path):
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1000)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    written = 0
    for method, properties, body in channel.consume(queue, inactivity_timeout=0.05):
        if method is None:
            if written:
                channel.basic_ack(written, multiple=True)
                written = 0
            continue
        headers = dict(properties.headers or {})
        line = {
            "id": properties.message_id,
            "seq": headers.get("outbox-seq"),
            "key": method.routing_key,
            "exchange": method.exchange,
            "redelivered": method.redelivered,
            "bytes": len(body),
            "at": time.time(),
            "headers": headers,
        }
        if len(body) <= 1000:
            line["body"] = body.decode("utf-8", "replace")
            line["properties"] = {
                name: getattr(properties, name)
                for name in ("type", "correlation_id", "reply_to", "content_type", "timestamp", "delivery_mode", "expiration", "app_id")
            }
        os.write(out, (json.dumps(line) + "\n").encode())
        written = method.delivery_tag
        if written % ACK_EVERY == 0:
            channel.basic_ack(written, multiple=True)
            written = 0


if __name__ == "__main__":
    sys.exit(__doc__) if len(sys.argv) != 4 else main(*sys.argv[1:])
