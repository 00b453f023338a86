/*-------------------------------------------------------------------------
 *
 * samevalue.c
 *	  Which columns have the same value on both sides.
 *
 * Rows are matched by their natural keys, and all else of a watched table is
 * pushed; but ids are each server's own, and so is what references them.  What
 * a foreign key of several columns says of a column besides an id, a tenant, is
 * the value of the row above in the same column, and so on up to one that
 * references nothing: so this is found by the tables' definitions here, however
 * many are on the way.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "samevalue.h"

/* chains of references that are followed */
#define MAX_REFERENCES	32

/*
 * Has a column that foreign keys reference the same value on the remote?
 *
 * depth: how many references it was reached by.  Those that go round in a circle
 * say nothing against it.
 */
static bool
is_same_there(Oid relid, AttrNumber attnum, int depth)
{
	const SynchroTable *table = synchro_table_get(relid, false);
	int			column = synchro_table_attribute(table, attnum);
	const SynchroColumn *c = &table->columns[column];
	int			ncols;
	Oid			parent;
	AttrNumber	referenced;

	if (!synchro_column_is_key(table, column) && (!table->watched || c->skipped || c->from_sequence))
		return false;
	if (c->fk < 0 || depth > MAX_REFERENCES)
		return true;

	/* the description does not outlive a look at the next one */
	ncols = table->fks[c->fk].ncols;
	parent = table->fks[c->fk].parent;
	referenced = table->fks[c->fk].refcols[c->fk_pos];
	if (synchro_table_get(parent, false)->mode == SYNCHRO_MODE_NONE)
		return true;
	return ncols > 1 && is_same_there(parent, referenced, depth + 1);
}

/*
 * For each column of a table: does the parent's column that it references have
 * the same value on the remote?  In the current memory context; in a local
 * transaction.
 *
 * table: a copy.
 */
bool *
synchro_same_references(const SynchroTable *table)
{
	bool	   *result = palloc0(sizeof(bool) * Max(table->ncolumns, 1));

	for (int i = 0; i < table->ncolumns; i++)
	{
		const SynchroColumn *c = &table->columns[i];

		if (c->fk >= 0 && !c->skipped)
			result[i] = is_same_there(table->fks[c->fk].parent, table->fks[c->fk].refcols[c->fk_pos], 0);
	}
	return result;
}

/*
 * By how many foreign keys does the natural key refer to other rows of the
 * table, beyond values that are the same on both sides?  One makes a tree of it;
 * of more there is no order in which names could be found.
 *
 * same: what synchro_same_references() says of the table.
 */
int
synchro_trees_in_key(const SynchroTable *table, const bool *same)
{
	int			count = 0;

	for (int fk = 0; table->mode == SYNCHRO_MODE_NATURAL_KEY && fk < table->nfks; fk++)
	{
		bool		names = false;

		for (int i = 0; i < table->nkey; i++)
			names |= table->columns[table->key[i]].fk == fk &&
				(!same[table->key[i]] ||
				 (table->fks[fk].ncols == 1 && synchro_identity_position(table, table->fks[fk].refcols[0]) >= 0));
		count += names && table->fks[fk].parent == table->relid;
	}
	return count;
}

/*
 * The error for a table whose key has several.
 */
void
synchro_report_trees(const SynchroTable *table)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
			 errmsg("the natural key of table %s refers to other rows of it by several foreign keys", table->qualified),
			 errdetail("Rows are found from the roots of one tree downwards."),
			 errhint("Leave all but one of these foreign keys out of the natural key.")));
}
