"""Prints the messages of a destination as lines of JSON, read with stomp.py.

Arguments: port, virtual host, destination, number of messages, seconds. Ends when it has them, or with status 1.
"""

import base64
import json
import sys
import threading

import stomp

port, vhost, destination, count, seconds = sys.argv[1:]
done = threading.Event()
left = int(count)


class Listener(stomp.ConnectionListener):
    def on_message(self, frame):
        global left
        body = frame.body if isinstance(frame.body, bytes) else frame.body.encode()
        print(json.dumps({"headers": frame.headers, "body": base64.b64encode(body).decode()}), flush=True)
        connection.ack(frame.headers["ack"])
        left -= 1
        if left <= 0:
            done.set()

    def on_error(self, frame):
        print(frame.headers, frame.body, file=sys.stderr)


# Bodies stay bytes: nothing is to be guessed about their encoding.
connection = stomp.Connection12([("127.0.0.1", int(port))], vhost=vhost, auto_decode=False)
connection.set_listener("", Listener())
connection.connect("guest", "guest", wait=True)
connection.subscribe(destination, id="1", ack="client-individual", headers={"prefetch-count": "1000"})
finished = done.wait(float(seconds))
connection.disconnect()
sys.exit(0 if finished else 1)
