#!/bin/sh
# Runs Apache Kafka on this machine for tries by hand: needs Go, java 17 and mvn.
#
#   kafka.sh                       one node of 4.1.1
#   kafka.sh -version 3.9.1 -nodes 3
#
# It prints the brokers' addresses and then takes commands, one a line: kill 2,
# stop 2, start 2 (a node), topic NAME PARTITIONS, sync, logs, quit. The data goes
# when it ends.
cd "$(dirname "$0")/../.." && exec go run ./internal/e2e/realkafka/serve "$@"
