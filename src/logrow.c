/*-------------------------------------------------------------------------
 *
 * logrow.c
 *	  A row of the log as those get it who read the log.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "clock.h"
#include "logrow.h"

/*
 * Hand on the sections of a row, each as a row of its own.
 */
static void
split_sections(const SynchroLogRow *row, const SynchroLogScan *scan)
{
	const char *pos = row->keys.data;
	const char *end = pos + row->keys.len;

	for (int i = 0; pos < end; i++)
	{
		SynchroLogRow section = *row;
		uint32		header[SYNCHRO_SECTION_HEADER / sizeof(uint32)];

		if (end - pos < SYNCHRO_SECTION_HEADER)
			synchro_key_damaged();
		memcpy(header, pos, SYNCHRO_SECTION_HEADER);
		pos += SYNCHRO_SECTION_HEADER;
		if (header[2] > (uint32) (end - pos))
			synchro_key_damaged();
		section.relation = (Oid) header[0];
		section.layout = header[1];
		section.part += i;
		section.keys.data = pos;
		section.keys.len = (int) header[2];
		pos += section.keys.len;
		scan->callback(&section, scan->arg);
	}
}

/*
 * Hand on a row of the log, whose first columns are given, and its keys, if it
 * has any.
 */
void
synchro_logrow_hand_on(const SynchroLogScan *scan, const Datum *values, const Datum *stored_keys, bool renames)
{
	SynchroLogRow row = {0};
	struct varlena *keys;
	Datum		stored;

	row.relation = DatumGetObjectId(values[0]);
	row.layout = (uint32) DatumGetInt32(values[1]);
	row.txid = (uint64) DatumGetInt64(values[2]);
	if (scan->since != NULL && synchro_snapshot_has(scan->since, row.txid))
		return;
	row.changed_at = DatumGetTimestampTz(values[3]);
	if (!scan->as_logged)
		row.changed_at = synchro_clock_clamp(row.txid, row.changed_at);
	row.part = DatumGetInt32(values[4]);
	row.renames = renames;
	row.keys.data = NULL;
	row.keys.len = 0;
	if (stored_keys == NULL)
	{
		scan->callback(&row, scan->arg);
		return;
	}
	stored = *stored_keys;
	keys = PG_DETOAST_DATUM_PACKED(stored);
	row.keys.data = VARDATA_ANY(keys);
	row.keys.len = VARSIZE_ANY_EXHDR(keys);
	row.keys = synchro_key_unseal(row.keys, row.relation, row.layout);
	if (row.relation == SYNCHRO_SEVERAL_RELATIONS)
		split_sections(&row, scan);
	else
		scan->callback(&row, scan->arg);
	if ((Pointer) keys != DatumGetPointer(stored))
		pfree(keys);
}
