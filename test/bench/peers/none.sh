# shellcheck shell=bash
#
# No replication at all: what the others' statements, transactions and WAL are measured by.

peer_conf()
{
	:
}

peer_connect()
{
	:
}

peer_hurry()
{
	:
}
