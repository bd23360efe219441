"""Writes and reads Parquet files with other programs for interop_test.go.

    interop.py write DIR   files by pyarrow, DuckDB and Polars, each with its values as JSON
    interop.py read FILE   the values of FILE as each of them reads it, as JSON lines
"""
import json, struct, sys, datetime, os
import duckdb, polars, pyarrow as pa, pyarrow.parquet as pq


def text(v, t):
    """A value as interop_test.go writes it."""
    if v is None:
        return None
    if pa.types.is_dictionary(t):
        return text(v, t.value_type)
    if pa.types.is_float32(t):
        return "f32:%08x" % struct.unpack("<I", struct.pack("<f", v))
    if pa.types.is_float64(t):
        return "f64:%016x" % struct.unpack("<Q", struct.pack("<d", v))
    if pa.types.is_boolean(t):
        return "true" if v else "false"
    if pa.types.is_list(t) or pa.types.is_large_list(t) or pa.types.is_fixed_size_list(t):
        return "list[" + " ".join("<nil>" if x is None else text(x, t.value_type) for x in v) + "]"
    if pa.types.is_struct(t):
        fields = [t.field(i) for i in range(t.num_fields)]
        return "struct[" + " ".join("<nil>" if v[f.name] is None else text(v[f.name], f.type) for f in fields) + "]"
    if isinstance(v, bytes):
        return ("f" if pa.types.is_fixed_size_binary(t) else "b") + v.decode()
    if isinstance(v, str):
        return "s" + v
    return str(v)


def values(table):
    out = []
    for col in table.columns:
        t = col.type
        if pa.types.is_timestamp(t):
            col = col.cast(pa.int64())
        elif pa.types.is_date32(t):
            col = col.cast(pa.int32())
        elif pa.types.is_time32(t):
            col = col.cast(pa.int32())
        elif pa.types.is_time64(t):
            col = col.cast(pa.int64())
        out.append([text(v, col.type) for v in col.to_pylist()])
    return out


def sample(n):
    def some(f):
        return [None if i % 7 == 3 else f(i) for i in range(n)]
    u = datetime.timezone.utc
    return pa.table({
        "f": pa.array([i / 3 for i in range(n)], pa.float32()),
        "fn": pa.array(some(lambda i: [float("nan"), float("inf"), -0.0, 1e-42, i * 1.5][i % 5]), pa.float32()),
        "d": pa.array(some(lambda i: i * 0.1), pa.float64()),
        "i8": pa.array(some(lambda i: i % 256 - 128), pa.int8()),
        "u8": pa.array(some(lambda i: i % 256), pa.uint8()),
        "i16": pa.array(some(lambda i: -i), pa.int16()),
        "u16": pa.array(some(lambda i: 65535 - i), pa.uint16()),
        "i32": pa.array(some(lambda i: i * 7919 - 10**6), pa.int32()),
        "u32": pa.array(some(lambda i: 2**32 - 1 - i), pa.uint32()),
        "i64": pa.array(some(lambda i: i - 2**63), pa.int64()),
        "u64": pa.array(some(lambda i: 2**64 - 1 - i), pa.uint64()),
        "b": pa.array(some(lambda i: i % 3 == 0), pa.bool_()),
        "s": pa.array(some(lambda i: "text%d" % (i % 11)), pa.string()),
        "many": pa.array(some(lambda i: "id%d" % i), pa.string()),
        "bin": pa.array(some(lambda i: b"x" * (i % 5)), pa.binary()),
        "day": pa.array(some(lambda i: datetime.date(2024, 1, 1) + datetime.timedelta(i % 900)), pa.date32()),
        "ts": pa.array(some(lambda i: datetime.datetime(2024, 1, 1, tzinfo=u) + datetime.timedelta(microseconds=i)), pa.timestamp("us", "UTC")),
        "null": pa.array([None] * n, pa.float32()),
        "l": pa.array([None if i % 5 == 0 else [] if i % 5 == 1 else [None if j == 2 else float(j + i) for j in range(i % 5)] for i in range(n)], pa.list_(pa.float32())),
    })


def save(path, table):
    with open(path + ".json", "w") as f:
        json.dump({"names": table.column_names, "values": values(table)}, f)


def write(dir):
    n = 3000
    t = sample(n)
    for codec in ["none", "snappy", "zstd", "gzip", "lz4"]:
        for version in ["1.0", "2.0"]:
            for dictionary in [True, False]:
                path = f"{dir}/pyarrow_{codec}_v{version[0]}_{'dict' if dictionary else 'plain'}.parquet"
                pq.write_table(t, path, compression=codec, data_page_version=version, use_dictionary=dictionary,
                               data_page_size=2000, row_group_size=1100, write_page_checksum=True, dictionary_pagesize_limit=4000,
                               store_schema=dictionary)
                save(path, t)
    for name, enc in {
        "bss": {c: "BYTE_STREAM_SPLIT" for c in ["f", "fn", "d", "i32", "i64"]},
        "delta": {**{c: "DELTA_BINARY_PACKED" for c in ["i8", "u8", "i16", "i32", "u32", "i64", "u64", "ts", "day"]},
                  "s": "DELTA_LENGTH_BYTE_ARRAY", "many": "DELTA_BYTE_ARRAY", "bin": "DELTA_BYTE_ARRAY"},
        "rle": {"b": "RLE"},
    }.items():
        for version in ["1.0", "2.0"]:
            path = f"{dir}/pyarrow_{name}_v{version[0]}.parquet"
            pq.write_table(t, path, compression="zstd", use_dictionary=False, column_encoding=enc, data_page_version=version, data_page_size=3000)
            save(path, t)
    nested = pa.table({
        "fixed": pa.array([[float(i), None] if i % 4 else None for i in range(500)], pa.list_(pa.float64(), 2)),
        "ll": pa.array([[[i, None], None, []] if i % 3 else [] for i in range(500)], pa.list_(pa.list_(pa.int32()))),
        "st": pa.array([{"a": i, "b": None if i % 2 else "x%d" % i} if i % 5 else None for i in range(500)], pa.struct([("a", pa.int64()), ("b", pa.string())])),
    })
    path = f"{dir}/pyarrow_nested.parquet"
    pq.write_table(nested, path)
    save(path, nested)
    con = duckdb.connect()
    con.register("t", t)
    for codec in ["uncompressed", "snappy", "zstd", "gzip", "lz4_raw"]:
        for v in ["V1", "V2"]:
            path = f"{dir}/duckdb_{codec}_{v}.parquet"
            con.execute(f"COPY t TO '{path}' (FORMAT parquet, COMPRESSION {codec}, PARQUET_VERSION {v}, ROW_GROUP_SIZE 2048)")
            save(path, t)
    df = polars.from_arrow(t)
    for codec in ["uncompressed", "snappy", "zstd", "gzip", "lz4"]:
        path = f"{dir}/polars_{codec}.parquet"
        df.write_parquet(path, compression=codec, row_group_size=1000, data_page_size=5000)
        save(path, t)


def read(path):
    print(json.dumps({"by": "pyarrow", "values": values(pq.read_table(path)), "types": [str(f.type) for f in pq.read_schema(path)]}))
    got = duckdb.connect().sql(f"SELECT * FROM read_parquet('{path}')").to_arrow_table()
    print(json.dumps({"by": "duckdb", "values": values(got), "types": []}))
    print(json.dumps({"by": "polars", "values": values(polars.read_parquet(path).to_arrow()), "types": []}))
    m = pq.read_metadata(path)
    for g in range(m.num_row_groups):
        for c in range(m.num_columns):
            s = m.row_group(g).column(c).statistics
            assert s is None or s.null_count is not None


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](sys.argv[2])
