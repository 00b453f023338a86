/*-------------------------------------------------------------------------
 *
 * translation.c
 *	  Which columns foreign keys translate, and SQL text for their values on the
 *	  remote.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "applysql.h"

/*
 * The parent's column that a column references by its foreign key.
 */
int
synchro_column_referenced(const SynchroLinkTable *lt, int column)
{
	const SynchroColumn *c = &lt->table->columns[column];

	return synchro_table_attribute(lt->parents[c->fk]->table, lt->table->fks[c->fk].refcols[c->fk_pos]);
}

/*
 * The foreign key that translates a column, or -1 where its value is taken
 * as it is.
 *
 * The latter also where the referenced column, one of several or none of the
 * parent's identity, is no id: the value is right by itself then, which it has to
 * be where the reference does not tell it.  A reference of several columns that is
 * NULL in part references no row; a name of before may have only some of them; and
 * a parent that is written in the same statement has its new value only after it.
 */
int
synchro_column_fk(const SynchroLinkTable *lt, int column)
{
	const SynchroColumn *c = &lt->table->columns[column];
	const SynchroForeignKey *key;

	if (c->fk < 0 || lt->parents[c->fk] == NULL)
		return -1;
	key = &lt->table->fks[c->fk];
	if (key->ncols == 1 && synchro_identity_position(lt->parents[c->fk]->table, key->refcols[0]) >= 0)
		return c->fk;
	return lt->same_references[column] ? -1 : c->fk;
}

/*
 * Does a foreign key translate a column of the natural key?
 */
bool
synchro_fk_names_key(const SynchroLinkTable *lt, int fk)
{
	for (int i = 0; i < lt->table->nkey; i++)
		if (synchro_column_fk(lt, lt->table->key[i]) == fk)
			return true;
	return false;
}

/*
 * Is a column of the identity a value like any other, beside one that a
 * sequence makes?  So is the partition key in a primary key.
 */
bool
synchro_identity_beside_sequence(const SynchroTable *table, int column)
{
	if (table->columns[column].from_sequence)
		return false;
	for (int i = 0; i < table->nidentity; i++)
		if (table->columns[table->identity[i]].from_sequence)
			return true;
	return false;
}

/*
 * Does a column of the identity take the value that it has here?  Else it is
 * the remote's own.
 */
bool
synchro_identity_is_value(const SynchroLinkTable *lt, int column)
{
	return synchro_column_is_key(lt->table, column) || synchro_column_fk(lt, column) >= 0 ||
		(lt->pushed[column] && synchro_identity_beside_sequence(lt->table, column));
}

/*
 * Does a foreign key translate columns that reference others than the parent's
 * identity?
 */
bool
synchro_fk_beyond_identity(const SynchroLinkTable *lt, int fk)
{
	for (int i = 0; i < lt->table->fks[fk].ncols; i++)
		if (synchro_column_fk(lt, lt->table->fks[fk].cols[i]) == fk &&
			synchro_identity_position(lt->parents[fk]->table, lt->table->fks[fk].refcols[i]) < 0)
			return true;
	return false;
}

/*
 * Do staged rows tell what new parents hold in the columns that such a foreign
 * key references?  On the remote it is not to be seen within the statement that
 * inserts them.  Not where the remote makes the values, or they are translated.
 */
bool
synchro_fk_staged_tells(const SynchroLinkTable *lt, int fk)
{
	const SynchroLinkTable *parent = lt->parents[fk];

	if (parent->rows == NULL)
		return false;
	for (int i = 0; i < lt->table->fks[fk].ncols; i++)
	{
		int			column = synchro_table_attribute(parent->table, lt->table->fks[fk].refcols[i]);

		if (synchro_column_fk(lt, lt->table->fks[fk].cols[i]) == fk &&
			synchro_identity_position(parent->table, lt->table->fks[fk].refcols[i]) < 0 &&
			(!parent->pushed[column] || synchro_column_fk(parent, column) >= 0))
			return false;
	}
	return true;
}

/*
 * Append the value of a column on the remote.
 *
 * source: alias of the staged row.  part: "r" or "v", which identity of the
 * parent's is meant.  The parents are joined by synchro_sql_join_parents().
 */
void
synchro_sql_value(StringInfo sql, const SynchroLinkTable *lt, int column,
				  const char *source, const char *part)
{
	int			fk = synchro_column_fk(lt, column);
	AttrNumber	refcol;
	int			position;

	if (fk < 0)
	{
		appendStringInfo(sql, "%s.c%d", source, column);
		return;
	}
	refcol = lt->table->fks[fk].refcols[lt->table->columns[column].fk_pos];
	position = synchro_identity_position(lt->parents[fk]->table, refcol);
	if (position >= 0)
		appendStringInfo(sql, "p%d.%s%d", fk, part, position);
	else
	{
		int			referenced = synchro_column_referenced(lt, column);
		const char *name = synchro_column_name(lt->parents[fk], referenced);

		if (synchro_fk_staged_tells(lt, fk))
			appendStringInfo(sql, "CASE WHEN p%d.fresh THEN y%d.c%d ELSE t%d.%s END", fk, fk, referenced, fk, name);
		else
			appendStringInfo(sql, "t%d.%s", fk, name);
	}
}

/*
 * Append joins that give the mapped parents of a staged row: alias p<fk>, and
 * t<fk> for the remote row where more than its identity is referenced, and y<fk>
 * for the staged one.
 */
void
synchro_sql_join_parents(StringInfo sql, const SynchroLinkTable *lt,
						 const char *source, bool key_only)
{
	for (int fk = 0; fk < lt->table->nfks; fk++)
	{
		const SynchroLinkTable *parent = lt->parents[fk];

		if (parent == NULL || (key_only && !synchro_fk_names_key(lt, fk)))
			continue;
		appendStringInfo(sql, " LEFT JOIN pg_temp.m_%d p%d ON p%d.kind = 'n' AND ",
						 parent->number, fk, fk);
		synchro_sql_equal(sql, psprintf("p%d.l", fk), psprintf("%s.f%d_", source, fk),
						  parent->table->nidentity);
		if (synchro_fk_beyond_identity(lt, fk))
		{
			appendStringInfo(sql, " LEFT JOIN %s t%d ON ", parent->remote->rows, fk);
			synchro_sql_identity_equal(sql, parent, psprintf("t%d", fk), psprintf("p%d.r", fk));
			if (synchro_fk_staged_tells(lt, fk))
			{
				appendStringInfo(sql, " LEFT JOIN pg_temp.s_%d y%d ON ", parent->number, fk);
				synchro_sql_equal(sql, psprintf("y%d.l", fk), psprintf("%s.f%d_", source, fk), parent->table->nidentity);
			}
		}
	}
}

/*
 * Is a name of before known by the value of that column, since a foreign key
 * references another column with it than the parent's identity?
 */
bool
synchro_column_is_value_of_before(const SynchroLinkTable *lt, int column)
{
	int			fk = synchro_column_fk(lt, column);

	return fk >= 0 && synchro_column_is_key(lt->table, column) &&
		synchro_fk_beyond_identity(lt, fk);
}
