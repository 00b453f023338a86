/*-------------------------------------------------------------------------
 *
 * known.c
 *	  Which tables what a remote keeps for us is about: stored references and
 *	  deletes that wait.
 *
 * They bear the name that the table had here when they were made.  A table may
 * be renamed or moved to another schema, and another one get its name; it may
 * be dropped and made again, on either side.  So beside them lies which table
 * of ours a name stands for, and which table there: by OID, since that is what
 * renaming leaves alone.  Whatever is not as it is noted is put right when a
 * link describes the table, before a row of it is looked up there:
 *
 * - another name here: they get it, too.  What bears that name for another
 *   table of ours is put aside, under a name that no table has, until that one
 *   is described; if it was dropped, for good.
 * - another table here by the same name: its rows are others.
 * - another table there: if most of the rows that the references lead to are
 *   in it, it was made of the old one, or restored; else they are forgotten,
 *   or they would soon lead to rows that are not ours, since ids begin anew.
 * - another primary key, here, or what it leads to there: columns of it are
 *   others, or were dropped and made again, by the same names perhaps.  Then the
 *   pairs are of values that mean other rows, or none.  Nobody but the
 *   administrator knows which row is which, so the table stalls until the key is
 *   what it was, or the references go: by reset(), or with the table's rows, and
 *   in one transaction with these, by reset_schema().  Columns are known by their
 *   numbers, which renaming leaves alone.  A dump of the remote does not, so with
 *   them goes the OID, as a number, of the table that has them: of another one
 *   they say nothing.
 *
 * All of it lies on the remote, and changes there in one transaction: a crash
 * leaves it done or not done.  Nobody else pushes as this node meanwhile, see
 * lock_remote() and settle_position().  The remote's OID is a regclass, so a
 * dump of the remote keeps it by name.
 *
 * A remote whose schema synchro_peer was made before there was such a table
 * goes by names alone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"
#include "known.h"
#include "localsql.h"
#include "previewsql.h"

/* one row of synchro_peer.known_table; lives as long as the link */
typedef struct KnownTable
{
	char	   *relation;		/* as references and deletes call it */
	Oid			relid;			/* here */
	char	   *there;			/* OID of the remote's */

	/* columns of which references are, see synchro_known_key() */
	char	   *node_key;
	char	   *own_key;
} KnownTable;

/*
 * Ask the remote which tables it knows.  Not in a local transaction.
 */
void
synchro_known_load(SynchroLink *link)
{
	const char *params[1] = {link->node};
	MemoryContext old = MemoryContextSwitchTo(link->context);
	SynchroRows *rows = synchro_remote_query(link->remote,
											 "SELECT relation, node_table, own_table::oid, node_key, own_key FROM " SYNCHRO_PEER_SCHEMA ".known_table WHERE node = $1",
											 1, params);

	link->known = NIL;
	for (int i = 0; i < rows->nrows; i++)
	{
		KnownTable *known = palloc(sizeof(KnownTable));

		known->relation = synchro_value(rows, i, 0);
		known->relid = atooid(synchro_value(rows, i, 1));
		known->there = synchro_value(rows, i, 2);
		known->node_key = synchro_value(rows, i, 3);
		known->own_key = synchro_value(rows, i, 4);
		link->known = lappend(link->known, known);
	}
	MemoryContextSwitchTo(old);
}

/*
 * The table here that deletes on the remote call so: its name now.  In a local
 * transaction.
 */
const char *
synchro_known_name(const SynchroLink *link, const char *relation)
{
	ListCell   *cell;

	foreach(cell, link->known)
	{
		const KnownTable *known = lfirst(cell);
		const SynchroTable *table;

		if (strcmp(known->relation, relation) != 0)
			continue;
		table = synchro_table_get(known->relid, true);
		return table != NULL ? table->qualified : relation;
	}
	return relation;
}

static void
append_rename(StringInfo sql, const SynchroLink *link, const char *from, const char *to)
{
	static const char *const tables[] = {"known_table", "reference", "unapplied"};

	for (int i = 0; i < lengthof(tables); i++)
		appendStringInfo(sql, "UPDATE %s.%s SET relation = %s WHERE node = '%s' AND relation = %s;",
						 link->peer, tables[i], quote_literal_cstr(to), link->node, quote_literal_cstr(from));
}

/*
 * What bears a table's name now and is about no table that we know of is
 * nobody's.
 */
static void
append_forget(StringInfo sql, const SynchroLink *link, const char *relation, const char *condition)
{
	appendStringInfo(sql, "DELETE FROM %s.reference WHERE node = '%s' AND relation = %s%s;",
					 link->peer, link->node, quote_literal_cstr(relation), condition);
}

/*
 * SQL for: most of the references lead to no row of the table there.
 */
static char *
most_lead_nowhere(const SynchroLink *link, const SynchroLinkTable *lt)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, " AND (SELECT count(*) FILTER (WHERE NOT EXISTS (SELECT FROM %s z WHERE y.remote_key OPERATOR(pg_catalog.=) ARRAY[",
					 lt->remote->rows);
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(&sql, "%s%s", i > 0 ? ", " : "", synchro_sql_remote_column(lt, lt->table->identity[i], "z"));
	appendStringInfo(&sql, "])) * 2 > count(*) FROM %s.reference y WHERE y.node = '%s' AND y.relation = %s)",
					 link->peer, link->node, quote_literal_cstr(lt->table->qualified));
	return sql.data;
}

static KnownTable *
find(const SynchroLink *link, const SynchroTable *table, KnownTable **other)
{
	KnownTable *result = NULL;
	ListCell   *cell;

	*other = NULL;
	foreach(cell, link->known)
	{
		KnownTable *known = lfirst(cell);

		if (known->relid == table->relid)
			result = known;
		else if (strcmp(known->relation, table->qualified) == 0)
			*other = known;
	}
	return result;
}

/* what bears this name instead of a table's says of which, by OID, the references are pinned */
#define PINNED_TABLES "#pinned"

/*
 * Append what writes a table's references anew, as they look whatever the
 * role's settings are.
 *
 * They are read with the settings that the role has now.  What has been pinned
 * reads the same with all: ISO dates and times with their zone, intervals with
 * all signs.
 */
static void
append_pin(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, const char *relation)
{
	int			n = lt->table->nidentity;

	appendStringInfoString(sql, "BEGIN;" SYNCHRO_SQL_AS_ROLE "CREATE TEMPORARY TABLE synchro_pinned ON COMMIT DROP AS SELECT y.ctid AS place");
	for (int i = 0; i < n; i++)
	{
		const char *base = lt->remote->columns[lt->table->identity[i]].base;

		/* of other types than the server's own it stays as it is: no casts */
		appendStringInfo(sql, ", y.remote_key[%d]%s%s AS r%d", i + 1, strchr(base, '.') == NULL ? "::" : "",
						 strchr(base, '.') == NULL ? base : "", i);
	}
	appendStringInfo(sql, " FROM %s.reference y WHERE y.node = '%s' AND y.relation = %s AND cardinality(y.remote_key) = %d;" SYNCHRO_SQL_PINNED
					 "UPDATE %s.reference y SET remote_key = p.k FROM (SELECT place, ",
					 link->peer, link->node, quote_literal_cstr(relation), n, link->peer);
	synchro_sql_remote_key(sql, lt, "r");
	appendStringInfo(sql, " AS k FROM pg_temp.synchro_pinned) p WHERE y.ctid = p.place AND y.remote_key OPERATOR(pg_catalog.<>) p.k;"
					 "INSERT INTO %s.reference (node, relation, local_key, remote_key) VALUES ('%s', '" PINNED_TABLES "', ARRAY['%u'], '{}')"
					 " ON CONFLICT DO NOTHING;COMMIT", link->peer, link->node, lt->table->relid);
}

/*
 * Have the references of a table, which bear that name, pinned.  Version 1.0
 * wrote them as they looked with the settings of the role that pushed, and as a
 * cast to text has them (synchro_sql_cast()).  Once for each table: the remote
 * remembers.
 *
 * What cannot be read, since the role's settings were others then, stays as it
 * is.
 */
static void
pin_references(const SynchroLink *link, const SynchroLinkTable *lt, const char *relation)
{
	const char *params[2] = {link->node, psprintf("{%u}", lt->table->relid)};
	StringInfoData sql;
	SynchroRemoteError *error;
	SynchroRows *rows;

	if (link->preview != NULL || !synchro_keeps_references(lt) ||
		!synchro_references_vary(lt))
		return;
	rows = synchro_remote_query(link->remote, "SELECT FROM " SYNCHRO_PEER_SCHEMA ".reference WHERE node = $1"
								" AND relation = '" PINNED_TABLES "' AND local_key = $2", 2, params);
	if (rows->nrows > 0)
		return;
	initStringInfo(&sql);
	append_pin(&sql, link, lt, relation);
	error = synchro_remote_script(link->remote, sql.data, NIL, NULL);
	if (error != NULL && strncmp(error->sqlstate, "22", 2) != 0)
		synchro_remote_report(link->remote, error, "while writing references anew");
}

/*
 * The columns of which references to a table's rows are, by the table's OID and
 * their numbers.
 */
char *
synchro_known_key(const SynchroTable *table)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "%u", table->relid);
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(&text, " %d", table->columns[table->identity[i]].attnum);
	return text.data;
}

/*
 * The same on the remote; NULL if it has not all of them.
 */
char *
synchro_known_key_there(const SynchroLinkTable *lt)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoString(&text, lt->remote->oid);
	for (int i = 0; i < lt->table->nidentity; i++)
	{
		const char *attnum = lt->remote->columns[lt->table->identity[i]].attnum;

		if (attnum == NULL)
			return NULL;
		appendStringInfo(&text, " %s", attnum);
	}
	return text.data;
}

/*
 * Is a key of the same table as another one?
 */
static bool
of_same_table(const char *key, const char *other)
{
	size_t		length = strcspn(key, " ");

	return length == strcspn(other, " ") && strncmp(key, other, length) == 0;
}

/* what becomes of the note of which primary key a table's references are */
typedef enum KeyNote
{
	KEY_STAYS,
	KEY_IS_NEW,					/* they are of the key that the table has now, and
								 * so are none of those that there were */
	KEY_IS_MIXED				/* some are of another */
} KeyNote;

/*
 * Look what a primary key that differs from what is noted makes of a table's
 * references.  Error if its rows are found by them.
 *
 * With another mode they stay, as they may be wanted some day: but then rows
 * will have come and gone that no reference tells of, so no key fits them any
 * more.  Of a table that is not watched, but has a natural key, they are what its
 * rows were called once, and wrong.
 *
 * What is kept here is put right first: the remote notes by itself that it has
 * emptied a table.
 */
static KeyNote
look_at_key(const SynchroLink *link, const SynchroLinkTable *lt, KnownTable *known, const char *node_key, const char *own_key)
{
	const char *params[2] = {link->node, psprintf("%u", lt->table->relid)};
	SynchroRows *rows = synchro_remote_query(link->remote, "SELECT k.node_key, k.own_key, EXISTS (SELECT FROM " SYNCHRO_PEER_SCHEMA ".reference y"
											 " WHERE y.node = k.node AND y.relation = k.relation) FROM " SYNCHRO_PEER_SCHEMA ".known_table k"
											 " WHERE k.node = $1 AND k.node_table = $2::oid", 2, params);

	known->node_key = MemoryContextStrdup(link->context, synchro_value(rows, 0, 0));
	known->own_key = MemoryContextStrdup(link->context, synchro_value(rows, 0, 1));
	if (lt->emptied || (strcmp(known->node_key, node_key) == 0 && strcmp(known->own_key, own_key) == 0))
		return KEY_STAYS;
	if (link->forgets_references || synchro_value(rows, 0, 2)[0] != 't' ||
		(!lt->table->watched && lt->table->mode != SYNCHRO_MODE_REFERENCE))
		return KEY_IS_NEW;
	if (lt->table->mode == SYNCHRO_MODE_REFERENCE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("primary key of table %s is not the one that its stored references are of", lt->table->qualified),
				 strcmp(known->node_key, node_key) != 0 ?
				 errdetail("It has other columns than when they were made, or these were made again.") :
				 errdetail("Its columns on remote \"%s\" were made again.", link->target->name),
				 errhint("If nothing was changed in it since, give it the columns that it had; else have the remote's rows made anew by synchro.reset_schema() with soft => false.")));
	return strcmp(known->node_key, SYNCHRO_MIXED_KEY) == 0 && strcmp(known->own_key, own_key) == 0 ? KEY_STAYS : KEY_IS_MIXED;
}

/*
 * Append what notes which table there a table is, and of which primary key its
 * references are.
 */
static void
append_note(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, const char *node_key, const char *own_key)
{
	appendStringInfo(sql, "UPDATE %s.known_table SET own_table = %s, node_key = %s, own_key = %s WHERE node = '%s' AND node_table = %u;",
					 link->peer, lt->remote->oid, quote_literal_cstr(node_key), quote_literal_cstr(own_key), link->node, lt->table->relid);
}

/*
 * Append what notes of which primary key the references of a table are that is
 * emptied, so that has none.  If it is: in the same transaction.
 */
void
synchro_known_sql_emptied(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	const char *own_key = synchro_known_key_there(lt);

	if (link->knows_tables && own_key != NULL)
		append_note(sql, link, lt, synchro_known_key(lt->table), own_key);
}

/*
 * Keep here what the remote has been told of a table.  known: what was kept of it
 * before, or NULL.
 */
static void
keep(SynchroLink *link, KnownTable *known, const SynchroLinkTable *lt, const char *node_key, const char *own_key)
{
	MemoryContext old = MemoryContextSwitchTo(link->context);

	if (known == NULL)
	{
		known = palloc0(sizeof(KnownTable));
		known->relid = lt->table->relid;
		link->known = lappend(link->known, known);
	}
	known->relation = pstrdup(lt->table->qualified);
	known->there = pstrdup(lt->remote->oid);
	known->node_key = pstrdup(node_key);
	known->own_key = pstrdup(own_key);
	MemoryContextSwitchTo(old);
}

/*
 * Have the remote know a table as what it is.
 */
static void
meet(SynchroLink *link, const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;
	KnownTable *other;
	KnownTable *known;
	char	   *aside = NULL;
	char	   *node_key;
	char	   *own_key;
	bool		same_table;		/* there, and by its number, too */
	bool		remade;			/* it is, and its key is another one */
	KeyNote		note = KEY_STAYS;
	StringInfoData sql;
	SynchroRemoteError *error;

	/* one that has lost its key comes by another, or by the same, before a row of it is looked up */
	if (link->peer == NULL || (!table->watched && !table->key_only) || table->mode == SYNCHRO_MODE_NONE)
		return;
	known = find(link, table, &other);

	/* if the name is another table's, what bears it is not ours */
	pin_references(link, lt, known != NULL ? known->relation : other == NULL ? table->qualified : "");
	if (!link->knows_tables)
		return;
	node_key = synchro_known_key(table);
	own_key = synchro_known_key_there(lt);

	/* whoever needs the columns will say so */
	if (own_key == NULL)
		return;
	same_table = known != NULL && strcmp(known->there, lt->remote->oid) == 0 && of_same_table(known->own_key, own_key);
	remade = same_table && strcmp(known->own_key, own_key) != 0;
	if (known != NULL && (strcmp(known->node_key, node_key) != 0 || remade))
		note = look_at_key(link, lt, known, node_key, own_key);
	if (same_table && strcmp(known->relation, table->qualified) == 0 && note == KEY_STAYS)
		return;
	initStringInfo(&sql);
	appendStringInfoString(&sql, link->preview != NULL ? SYNCHRO_PREVIEW_BEGIN : "BEGIN;");
	if (other != NULL)
	{
		aside = psprintf("#%u", other->relid);
		append_rename(&sql, link, table->qualified, aside);
	}
	if (known == NULL)
		appendStringInfo(&sql, "INSERT INTO %s.known_table (node, relation, node_table, own_table, node_key, own_key) VALUES ('%s', %s, %u, %s, %s, %s);",
						 link->peer, link->node, quote_literal_cstr(table->qualified), table->relid, lt->remote->oid,
						 quote_literal_cstr(node_key), quote_literal_cstr(own_key));
	else if (strcmp(known->relation, table->qualified) != 0)
	{
		append_forget(&sql, link, table->qualified, "");
		append_rename(&sql, link, known->relation, table->qualified);
	}
	if (note == KEY_IS_NEW)
		append_forget(&sql, link, table->qualified, "");
	else if (known != NULL && strcmp(known->there, lt->remote->oid) != 0)
		append_forget(&sql, link, table->qualified, most_lead_nowhere(link, lt));

	/* deletes that wait there are of ids that it had */
	if (note != KEY_STAYS && remade)
		appendStringInfo(&sql, "DELETE FROM %s.unapplied WHERE node = '%s' AND relation = %s;", link->peer, link->node, quote_literal_cstr(table->qualified));
	if (note == KEY_IS_MIXED)
		node_key = SYNCHRO_MIXED_KEY;
	else if (known != NULL && note == KEY_STAYS)
		node_key = known->node_key;
	if (known != NULL && (note != KEY_STAYS || !same_table))
		append_note(&sql, link, lt, node_key, own_key);
	if (link->preview != NULL)
		synchro_sql_preview_end(&sql, true);
	else
		appendStringInfoString(&sql, "COMMIT");
	error = synchro_remote_script(link->remote, sql.data, NIL, NULL);
	if (error != NULL)
		synchro_remote_report(link->remote, error, "while noting which table is which");

	if (other != NULL)
		other->relation = MemoryContextStrdup(link->context, aside);
	keep(link, known, lt, node_key, own_key);
}

/*
 * Have the remote know a table that was just described as what it is.  Not in
 * a local transaction.  Error if rows would be found by references that are of
 * another primary key.
 */
void
synchro_known_meet(SynchroLink *link, const SynchroLinkTable *lt)
{
	KnownTable *other;
	KnownTable *known;

	meet(link, lt);

	/* the remote will note by itself whether it was emptied: ask it next time */
	known = lt->emptied ? find(link, lt->table, &other) : NULL;
	if (known != NULL)
		known->node_key = MemoryContextStrdup(link->context, "?");
}
