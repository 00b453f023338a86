/*-------------------------------------------------------------------------
 *
 * waitingsql.c
 *	  SQL text: names that are looked up for rows that wait.
 *
 * Whatever else a batch is about, it names rows that wait, and what their names
 * refer to: by what the remote calls them (read_waiting() of batchread.c), or as
 * they are called here, so that they do not go along with what is deleted
 * (batchguard.c).  If such a name is bad that is why they wait.  It must not be an
 * error, or each batch that names it would fail, and none of its own rows is to blame.
 *
 * So these names are staged apart, after all that the batch itself refers to:
 * nobody else needs what is only there.  A name that a type there refuses is no row's
 * there, and is left out.  Of one that several rows bear there, all of them are
 * taken, since any may be the one that waits.
 *
 * A value may have characters that the remote's encoding lacks, for which not even
 * the script would be read.  Hence hexadecimal digits.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "applysql.h"
#include "rowerror.h"

/*
 * Append what a new session needs for that: functions that insert lines, without
 * those that cannot be inserted, which are found by halves; and that give the text
 * of digits, or, where it cannot be had there, one that stands for it and is no other's.
 */
void
synchro_sql_waiting_session(StringInfo sql)
{
	const char *encoding = quote_literal_cstr(GetDatabaseEncodingName());

	appendStringInfo(sql,
					 "CREATE FUNCTION pg_temp.synchro_stage(head text, lines text[]) RETURNS void LANGUAGE plpgsql AS $synchro$"
					 " DECLARE half integer := pg_catalog.cardinality(lines) / 2;"
					 " BEGIN EXECUTE head OPERATOR(pg_catalog.||) pg_catalog.convert_from(pg_catalog.decode(pg_catalog.array_to_string(lines, '2c'), 'hex'), %s);"
					 " EXCEPTION WHEN OTHERS THEN IF (", encoding);
	synchro_sql_not_about_rows(sql, "SQLSTATE");
	appendStringInfoString(sql, ") AND NOT (");
	synchro_sql_about_definitions(sql, "SQLSTATE");
	appendStringInfo(sql,
					 ") THEN RAISE; END IF; IF half > 0 THEN PERFORM pg_temp.synchro_stage(head, lines[:half]);"
					 " PERFORM pg_temp.synchro_stage(head, lines[half + 1:]); END IF; END $synchro$;"
					 "CREATE FUNCTION pg_temp.synchro_decode(digits text) RETURNS text LANGUAGE plpgsql AS $synchro$"
					 " BEGIN RETURN pg_catalog.convert_from(pg_catalog.decode(digits, 'hex'), %s);"
					 " EXCEPTION WHEN data_exception THEN RETURN '\\x' OPERATOR(pg_catalog.||) digits; END $synchro$;", encoding);
}

/*
 * Append the lines of a spool as digits, each a parenthesis of VALUES.
 *
 * first, count, parents, nparents: where the identity is among the columns, and those
 * of the rows that it refers to.  These are only compared with each other.
 */
static void
append_lines(StringInfo sql, SynchroSpool *spool, int first, int count, int parents, int nparents)
{
	StringInfoData text;
	StringInfoData line;
	StringInfoData value;
	const char *data;
	const char *pos;
	int			len;
	int			column = 0;

	initStringInfo(&text);
	initStringInfo(&line);
	initStringInfo(&value);
	synchro_spool_rewind(spool);
	while ((len = synchro_spool_read(spool, &data)) > 0)
		appendBinaryStringInfo(&text, data, len);
	for (pos = text.data; *pos != '\0'; pos++)
	{
		bool		is_identity = (column >= first && column < first + count) || (column >= parents && column < parents + nparents);
		bool		is_null;

		appendStringInfoString(&line, column == 0 ? "(" : ", ");
		pos = synchro_values_field(pos, &value, &is_null);
		if (is_identity && !is_null && synchro_values_may_be_foreign(value.data))
		{
			appendStringInfoString(&line, "pg_temp.synchro_decode('");
			synchro_values_digits(&line, value.data, value.len);
			appendStringInfoString(&line, "')");
		}
		else
			synchro_values_literal(&line, &value, is_null);
		column++;
		if (*pos == '\t')
			continue;
		appendStringInfoString(&line, ", true)");
		appendStringInfoString(sql, sql->data[sql->len - 1] == '{' ? "" : ",");
		synchro_values_digits(sql, line.data, line.len);
		resetStringInfo(&line);
		column = 0;
	}
}

/*
 * Append what stages the names of a table that are looked up for rows that wait.
 */
void
synchro_sql_fill_waiting(StringInfo sql, const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;
	int			first = lt->decides ? 4 : 1;
	int			parents = first + (lt->table->mode == SYNCHRO_MODE_REFERENCE ? 2 * n : n);
	int			nparents = 0;

	for (int fk = 0; fk < lt->table->nfks; fk++)
		if (lt->parents[fk] != NULL && synchro_fk_names_key(lt, fk))
			nparents += lt->parents[fk]->table->nidentity;
	appendStringInfoString(sql, "SELECT pg_temp.synchro_stage('INSERT INTO pg_temp.");
	synchro_sql_names_into(sql, lt);
	appendStringInfoString(sql, ", for_waiting) VALUES ', '{");
	append_lines(sql, lt->waiting, first, n, parents, nparents);
	appendStringInfoString(sql, "}');");
}

/*
 * Append "nothing in the batch but rows that wait refers to the row alias", of
 * the map.
 */
void
synchro_sql_only_waiting(StringInfo sql, const SynchroLinkTable *lt, const char *alias)
{
	int			n = lt->table->nidentity;

	appendStringInfo(sql, "NOT EXISTS (SELECT FROM pg_temp.n_%d z WHERE z.kind = '" SYNCHRO_KIND_PRESENT "' AND z.for_waiting " SYNCHRO_SQL_IS_NULL " AND ",
					 lt->number);
	synchro_sql_equal(sql, "z.l", psprintf("%s.l", alias), n);
	appendStringInfoChar(sql, ')');
	if (lt->rows == NULL)
		return;
	appendStringInfo(sql, " AND NOT EXISTS (SELECT FROM pg_temp.s_%d z WHERE ", lt->number);
	synchro_sql_equal(sql, "z.l", psprintf("%s.l", alias), n);
	appendStringInfoChar(sql, ')');
}
