"""osquery's extension manager and scheduler, made of osquery's own Python bindings, for the tests.

`manager.py SOCKET DATABASE` listens at SOCKET as osqueryd does and does what the lines of standard input say, one JSON object each; each is answered
with one. DATABASE holds what osqueryd keeps across its restarts. See `Handler.do_*` for what can be asked.
"""

import json
import os
import sys
import threading
import time
import uuid

from osquery.extensions import ExtensionManager
from osquery.extensions.ttypes import (
    ExtensionResponse,
    ExtensionStatus,
    InternalExtensionInfo,
    InternalOptionInfo,
)
from osquery.extension_client import ExtensionClient
from thrift.protocol import TBinaryProtocol
from thrift.server import TServer
from thrift.transport import TSocket, TTransport

OK = ExtensionStatus(code=0, message="OK", uuid=0)


class Handler:
    def __init__(self, socket, database):
        self.socket = socket
        self.path = database
        self.extensions_by_uuid = {}
        self.registries = {}
        self.lock = threading.Lock()
        self.executing = ""
        try:
            with open(database) as file:
                self.database = json.load(file)
        except FileNotFoundError:
            self.database = {"instance_id": str(uuid.uuid4()), "counters": {}, "timestamps": {}}
            self.save()

    def save(self):
        with open(self.path + ".new", "w") as file:
            json.dump(self.database, file)
        os.rename(self.path + ".new", self.path)

    # What extensions call.

    def ping(self):
        return OK

    def shutdown(self):
        pass

    def extensions(self):
        return dict(self.extensions_by_uuid)

    def options(self):
        return {"events_expiry": InternalOptionInfo(value="3600", default_value="3600", type="uint64")}

    def registerExtension(self, info, registry):
        with self.lock:
            if any(known.name == info.name for known in self.extensions_by_uuid.values()):
                return ExtensionStatus(code=1, message="Duplicate extension registered", uuid=0)
            number = len(self.registries) + 1
            self.registries[number] = registry
            self.extensions_by_uuid[number] = info
            return ExtensionStatus(code=0, message="OK", uuid=number)

    def deregisterExtension(self, number):
        with self.lock:
            known = self.extensions_by_uuid.pop(number, None)
        return OK if known else ExtensionStatus(code=1, message="No extension UUID registered", uuid=0)

    def query(self, sql):
        rows = []
        if "osquery_registry" in sql:
            rows = [{"name": name, "registry": "table", "active": "1", "internal": "0", "owner_uuid": "0"} for name in ("processes", "users")]
        elif "osquery_info" in sql:
            rows = [{"instance_id": self.database["instance_id"], "version": "5.23.0", "pid": str(os.getpid())}]
        return ExtensionResponse(status=OK, response=rows)

    def getQueryColumns(self, sql):
        return ExtensionResponse(status=OK, response=[])

    def call(self, registry, item, request):
        if registry != "database" or request.get("action") != "get":
            return ExtensionResponse(status=ExtensionStatus(code=1, message="not here", uuid=0), response=[])
        domain, key = request["domain"], request["key"]
        value = None
        if domain == "configurations" and key == "executing_query":
            value = self.executing
        elif domain == "configurations" and key.startswith("timestamp."):
            value = self.database["timestamps"].get(key[len("timestamp."):])
        elif domain == "queries" and key.endswith("counter"):
            value = self.database["counters"].get(key[: -len("counter")])
        if value is None:
            return ExtensionResponse(status=ExtensionStatus(code=1, message="NotFound", uuid=0), response=[])
        return ExtensionResponse(status=OK, response=[{"v": str(value)}])

    # What the test asks.

    def do_tables(self, ask):
        """The tables that are registered now, each with its routes; {} while nobody is registered."""
        with self.lock:
            for number in self.extensions_by_uuid:
                return self.registries[number].get("table", {})
        return {}

    def do_generate(self, ask):
        """Asks for rows as an ad-hoc query does: {table, context}."""
        return self.generate(ask["table"], ask.get("context"))

    def do_run(self, ask):
        """Runs a scheduled query: {name, calls: [{table, context}…], accept}. Accepted, its counter moves, as when rows were logged."""
        name = ask["name"]
        self.executing = name
        # A schedule has runs at least a second apart; the tests need not wait for that.
        timestamps = self.database["timestamps"]
        timestamps[name] = max(int(time.time()), timestamps.get(name, 0) + 1)
        self.save()
        try:
            answers = [self.generate(call["table"], call.get("context")) for call in ask["calls"]]
        finally:
            self.executing = ""
        if ask.get("accept", True):
            counters = self.database["counters"]
            counters[name] = counters.get(name, 0) + 1
            self.save()
        return answers

    def generate(self, table, context):
        number = next(iter(self.extensions_by_uuid), None)
        if number is None:
            return {"error": "no extension is registered"}
        # A ping on its own connection comes first, as in osqueryd.
        for ping in (True, False):
            client = ExtensionClient(self.socket, number)
            if not client.open():
                self.extensions_by_uuid.pop(number, None)
                return {"error": "the extension does not answer"}
            try:
                if ping:
                    client.extension_client().ping()
                    continue
                request = {"action": "generate"}
                if context is not None:
                    request["context"] = json.dumps(context)
                response = client.extension_client().call("table", table, request)
            finally:
                client.close()
        if response.status.code != 0:
            return {"error": response.status.message}
        return {"rows": response.response}

    def do_columns(self, ask):
        """What the extension itself says of a table's columns."""
        number = next(iter(self.extensions_by_uuid))
        client = ExtensionClient(self.socket, number)
        client.open()
        try:
            return client.extension_client().call("table", ask["table"], {"action": "columns"}).response
        finally:
            client.close()


def main():
    socket, database = sys.argv[1:]
    handler = Handler(socket, database)
    if os.path.exists(socket):
        os.unlink(socket)
    server = TServer.TThreadedServer(
        ExtensionManager.Processor(handler),
        TSocket.TServerSocket(unix_socket=socket),
        TTransport.TBufferedTransportFactory(),
        TBinaryProtocol.TBinaryProtocolFactory(),
        daemon=True,
    )
    threading.Thread(target=server.serve, daemon=True).start()
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            answer = {"ok": getattr(handler, "do_" + ask["do"])(ask)}
        except Exception as error:  # whatever the extension did wrong is the test's to see
            answer = {"failed": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
