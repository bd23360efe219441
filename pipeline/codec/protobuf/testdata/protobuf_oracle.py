"""Reads messages without headers by Google's protobuf, and writes them again.

stdin:  {"Message": full name, "Set": base64 of a descriptor set, "Messages": [base64, ...]}
stdout: {"Rows": [text, ...], "Again": [base64, ...]}
"""

import base64
import json
import sys

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

job = json.load(sys.stdin)
files = descriptor_pb2.FileDescriptorSet.FromString(base64.b64decode(job["Set"]))
pool = descriptor_pool.DescriptorPool()
for f in files.file:
    pool.Add(f)
cls = message_factory.GetMessageClass(pool.FindMessageTypeByName(job["Message"]))
rows, again = [], []
for m in job["Messages"]:
    message = cls.FromString(base64.b64decode(m))
    rows.append(json.dumps(json_format.MessageToDict(message, preserving_proto_field_name=True), ensure_ascii=False))
    again.append(base64.b64encode(message.SerializeToString(deterministic=True)).decode())
json.dump({"Rows": rows, "Again": again}, sys.stdout)
