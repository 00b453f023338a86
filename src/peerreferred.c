/*-------------------------------------------------------------------------
 *
 * peerreferred.c
 *	  SQL-callable function: what has been changed here of rows that refer to
 *	  rows which another node deletes.
 *
 * A row that is deleted takes along what refers to it by ON DELETE CASCADE, and
 * is held by it otherwise, or is forgotten by it.  Where such a row was changed
 * after the delete, by somebody who did not know of it, the newer change has to
 * win: if it had come to the other node first, that one would have got it with
 * the row which it refers to (README, Parents).  So the delete loses against
 * whatever refers to the row, be it by way of others (referring.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "compat.h"
#include "identities.h"
#include "localsql.h"
#include "peersession.h"
#include "referring.h"

PG_FUNCTION_INFO_V1(synchro_peer_referred);

/*
 * Is an element of an array of tables' names the same as the one before?
 */
static bool
is_repeated(Datum name, Datum before)
{
	return DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, name, before));
}

/*
 * The tables of rows that are to be deleted.  Returns for each row its place,
 * NULL if the table is not watched.
 */
static SynchroReferringPlace **
put_tables(SynchroReferring *search, Datum *names, int count)
{
	SynchroReferringPlace **places = palloc0(sizeof(SynchroReferringPlace *) * Max(count, 1));

	for (int i = 0; i < count; i++)
	{
		const SynchroTable *table;

		if (i > 0 && is_repeated(names[i], names[i - 1]))
		{
			places[i] = places[i - 1];
			continue;
		}
		table = synchro_peersession_table(names[i]);
		if (table == NULL)
			continue;
		places[i] = synchro_referring_place(search, table);
		places[i]->name = names[i];
	}
	return places;
}

/*
 * The rows that are to be deleted.
 */
static void
put_rows(SynchroReferring *search, SynchroReferringPlace **places, Datum *identities, int count)
{
	for (int i = 0; i < count; i++)
	{
		const SynchroTable *table;
		SynchroBytes bytes;

		if (places[i] == NULL)
			continue;
		table = places[i]->table;
		bytes = synchro_identities_encode_text(table, table->identity, table->nidentity, TextDatumGetCString(identities[i]));
		synchro_referring_row(search, places[i], bytes)->text = identities[i];
	}
}

/*
 * The columns that the batch writes: each after its table's name.
 */
static void
put_written(SynchroReferring *search, Datum array)
{
	Datum	   *elements;
	int			count = synchro_text_elements(array, &elements);
	SynchroReferringPlace *place = NULL;

	for (int i = 0; i + 1 < count; i += 2)
	{
		char	   *column = TextDatumGetCString(elements[i + 1]);

		if (i == 0 || !is_repeated(elements[i], elements[i - 2]))
			place = synchro_referring_find(search, synchro_table_by_name(TextDatumGetCString(elements[i])));
		if (place == NULL)
			continue;
		if (place->written == NULL)
			place->written = palloc0(sizeof(bool) * Max(place->table->ncolumns, 1));
		for (int j = 0; j < place->table->ncolumns; j++)
			if (strcmp(place->table->columns[j].name, column) == 0)
				place->written[j] = true;
	}
}

/*
 * peer_referred(relations, identities, since, written): the newest changes of
 * rows that refer to these rows here, be it by way of others, as far as they were
 * made since then.  relations: one for each identity.  written: tables of which
 * the batch writes rows, each with the columns that it writes.
 */
Datum
synchro_peer_referred(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	SynchroReferring search = {CurrentMemoryContext};
	Datum	   *relations;
	Datum	   *identities;
	int			count = synchro_text_elements(PG_GETARG_DATUM(0), &relations);
	SynchroReferringPlace **places;
	ListCell   *cell;

	(void) synchro_peersession();
	InitMaterializedSRF(fcinfo, 0);
	if (synchro_text_elements(PG_GETARG_DATUM(1), &identities) != count)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("arrays of different lengths")));
	places = put_tables(&search, relations, count);

	/* as a rule there is nothing newer: then the rows need not be looked at */
	if (!synchro_referring_changed(&search, PG_GETARG_INT64(2)))
		return (Datum) 0;
	put_written(&search, PG_GETARG_DATUM(3));
	put_rows(&search, places, identities, count);
	if (!synchro_referring_follow(&search))
		return (Datum) 0;
	foreach(cell, search.places)
	{
		const SynchroReferringPlace *place = lfirst(cell);
		HASH_SEQ_STATUS status;
		SynchroReferringRow *row;

		hash_seq_init(&status, place->rows);
		while ((row = hash_seq_search(&status)) != NULL)
		{
			Datum		values[4];
			bool		nulls[4] = {0};

			if (row->text == (Datum) 0 || !row->reached)
				continue;
			values[0] = place->name;
			values[1] = row->text;
			values[2] = Int64GetDatum(row->newest.at);
			values[3] = UUIDPGetDatum(&synchro_stamps_source(search.stamps, row->newest)->origin);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	return (Datum) 0;
}
