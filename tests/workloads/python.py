"""What a small web service does before it can answer: import, then say so."""
import asyncio
import http.server
import json
import sqlite3
import ssl

import flask
import numpy
import requests

app = flask.Flask("start")
total = int(numpy.arange(10).sum())
print("ready", json.dumps({"flask": bool(app), "sum": total, "ssl": ssl.OPENSSL_VERSION}), flush=True)
