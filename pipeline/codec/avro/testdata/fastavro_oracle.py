"""Reads messages without headers by fastavro, and writes the same rows again.

stdin:  {"Schema": ..., "Messages": [base64, ...]}
stdout: {"Rows": [text, ...], "Again": [base64, ...]}
"""

import base64
import datetime
import io
import json
import sys

import fastavro


def show(v):
    if isinstance(v, (datetime.datetime, datetime.date)):
        return v.isoformat()
    if isinstance(v, float):
        return repr(float("%.7g" % v))
    return repr(v)


job = json.load(sys.stdin)
schema = fastavro.parse_schema(job["Schema"])
rows, again = [], []
for m in job["Messages"]:
    data = io.BytesIO(base64.b64decode(m))
    row = fastavro.schemaless_reader(data, schema, None)
    assert data.read() == b"", "bytes are left"
    rows.append(" ".join("%s=%s" % (k, show(v)) for k, v in row.items()))
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, row)
    again.append(base64.b64encode(out.getvalue()).decode())
json.dump({"Rows": rows, "Again": again}, sys.stdout)
