/*-------------------------------------------------------------------------
 *
 * applysql.h
 *	  SQL text that stages a batch on the remote and applies it.  Pure
 *	  functions of the tables' descriptions: no I/O.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_APPLYSQL_H
#define SYNCHRO_APPLYSQL_H

#include "lib/stringinfo.h"
#include "link.h"
#include "sqltext.h"

/* SQLSTATEs of conditions that our own remote SQL raises */
#define SYNCHRO_MISSING_PARENTS "SY001"
#define SYNCHRO_AMBIGUOUS_KEY	"SY002"
#define SYNCHRO_KNOWN_ROWS		"SY003"
#define SYNCHRO_NOT_THERE		"SY004"
#define SYNCHRO_ALTERED			"40SY1"	/* of those that are to be tried again */
#define SYNCHRO_RENAMED_THERE	"40SY2" /* likewise: see peer_begin() */
#define SYNCHRO_DELETED_THERE	"40SY3" /* likewise: see upsertsql.c */
#define SYNCHRO_NODE_THERE		"40SY4" /* see alteredsql.c */

/* that of ln(0), see synchro_sql_same_node() */
#define SYNCHRO_OTHER_NODE		"2201E"

/*
 * While a batch is applied the role's own settings hold: for what is to look as it
 * does otherwise, whoever pushes, they are put aside.
 */
#define SYNCHRO_SQL_PINNED	"SET LOCAL timezone = 'UTC';SET LOCAL datestyle = 'ISO, YMD';SET LOCAL intervalstyle = postgres;"
#define SYNCHRO_SQL_AS_ROLE	"SET LOCAL timezone TO DEFAULT;SET LOCAL datestyle TO DEFAULT;SET LOCAL intervalstyle TO DEFAULT;"

/* first column of the results that count rows */
#define SYNCHRO_UPSERT_TAG		"upsert"
#define SYNCHRO_DELETE_TAG		"delete"
#define SYNCHRO_APART_TAG		"apart"
#define SYNCHRO_CLAIMED_TAG		"claimed"

/* the key of a row of unapplied as it is shown here */
#define SYNCHRO_SQL_SHOWN_KEY(key)	"pg_catalog.array_to_string(" key ", ', ', 'NULL')"

/* kinds of names and of mapped rows */
#define SYNCHRO_KIND_PRESENT	"p" /* name as it is now */
#define SYNCHRO_KIND_OLD		"o" /* name that the row bore before */
#define SYNCHRO_KIND_DEAD		"d" /* name of a row that was there before */
#define SYNCHRO_KIND_GONE		"g" /* name that nobody bears any more */
#define SYNCHRO_KIND_ENSURED	"e" /* name of a row that is only to be there */
#define SYNCHRO_KIND_GHOST		"h" /* row that is gone on the remote */
#define SYNCHRO_KIND_WAITING	"w" /* name that a row keeps there, as its new
									 * one has been refused */

/* those of names that a row bears no more */
#define SYNCHRO_OLD_KINDS		"('" SYNCHRO_KIND_OLD "', '" SYNCHRO_KIND_DEAD "', '" SYNCHRO_KIND_GONE "')"

/* rows of a table that wait, since a change of them was refused */
typedef struct SynchroGuarded
{
	SynchroLinkTable *lt;
	char	   *rows;			/* their identities: a query of columns as they are staged */
} SynchroGuarded;

/* in valuessql.c */
extern bool synchro_values_are_few(SynchroSpool *spool);
extern const char *synchro_values_field(const char *pos, StringInfo value, bool *is_null);
extern void synchro_values_literal(StringInfo sql, const StringInfoData *value, bool is_null);
extern void synchro_values_digits(StringInfo sql, const char *data, int len);
extern bool synchro_values_may_be_foreign(const char *text);
extern void synchro_sql_values(StringInfo sql, StringInfo arguments, SynchroSpool *spool);
extern char *synchro_sql_identity_rows(const SynchroTable *table, const List *lists);

/* how rows get into staging tables, if they are few */
typedef struct SynchroFilling
{
	bool		by_copy;		/* like many */
	SynchroLink *prepare;		/* link whose session keeps the statements, or
								 * NULL */
} SynchroFilling;

/* in stagesql.c, emptysql.c and applysql.c */
extern void synchro_sql_session(StringInfo sql, const char *mark);
extern void synchro_sql_staged_key(StringInfo sql, const SynchroLinkTable *lt, const char *column);
extern void synchro_sql_named_row(StringInfo sql, const SynchroLinkTable *lt, const char *column);
extern void synchro_sql_stage_rows(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_sql_stage_names(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_sql_empty(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt);
extern void synchro_sql_unstage(StringInfo sql, const SynchroStaging *staging);
extern void synchro_stage_committed(SynchroStaging *staging, bool used);
extern bool synchro_sql_fill_rows(StringInfo sql, SynchroFilling how, const SynchroLinkTable *lt);
extern void synchro_sql_names_into(StringInfo into, const SynchroLinkTable *lt);
extern bool synchro_sql_fill_names(StringInfo sql, SynchroFilling how, const SynchroLinkTable *lt);
extern bool synchro_sql_fill_changes(StringInfo sql, SynchroFilling how, const SynchroLinkTable *lt);
extern void synchro_sql_missing(StringInfo sql, List *tables);
extern int	synchro_stage_size(int64 nrows);
extern void synchro_sql_doomed(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_sql_condemned(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, bool leftovers);
extern void synchro_sql_awaits_delete(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, const char *alias);
extern void synchro_sql_remote_key(StringInfo sql, const SynchroLinkTable *lt, const char *prefix);
extern void synchro_sql_mark(StringInfo sql, const SynchroLinkTable *lt);
extern bool synchro_fk_moves(const SynchroLinkTable *lt, int fk);
extern void synchro_sql_follow(StringInfo sql, const SynchroLinkTable *lt, List *component);
extern void synchro_sql_delete(StringInfo sql, const SynchroLink *link, List *component, bool leftovers);
extern void synchro_sql_postpone(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, bool put);
extern void synchro_sql_is_unapplied(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, const char *mapped);
extern void synchro_sql_is_kept(StringInfo sql, const SynchroLinkTable *lt, const char *mapped);
extern bool synchro_references_vary(const SynchroLinkTable *lt);
extern bool synchro_keeps_references(const SynchroLinkTable *lt);
extern void synchro_sql_pin(StringInfo sql, const SynchroLinkTable *lt, bool begin);
extern void synchro_sql_pin_names(StringInfo sql, const SynchroLinkTable *lt, bool begin);
extern void synchro_sql_references(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, uint64 made);

/* in upsertsql.c */
extern const char *synchro_sql_stored(const SynchroLinkTable *lt, int column);
extern bool synchro_column_updatable(const SynchroLinkTable *lt, int column);
extern void synchro_sql_from_staged(StringInfo sql, const SynchroLinkTable *lt);
extern bool synchro_sql_is_unmapped(const SynchroLinkTable *lt, const List *tables);
extern void synchro_sql_differs(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_sql_upsert(StringInfo sql, List *component);

/* in alteredsql.c */
extern void synchro_sql_unaltered(StringInfo sql, const SynchroLink *link, const List *tables);

/* in resolvesql.c */
extern void synchro_sql_fresh_identity(StringInfo sql, const SynchroLinkTable *lt, int identity, const char *source);
extern void synchro_sql_resolve(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt);

/* in claimsql.c; so many claims are told and known, each by itself */
#define SYNCHRO_MAX_CLAIMED		1000
extern void synchro_sql_forget_unborn(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt);
extern void synchro_sql_claim(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt);
extern void synchro_sql_not_there(StringInfo sql, List *tables);

/* in apartsql.c */
extern void synchro_sql_define_try(StringInfo sql, bool guard);
extern void synchro_sql_try_deletes(StringInfo sql, const SynchroLink *link, List *tables);
extern void synchro_sql_delete_apart(StringInfo sql, const SynchroLink *link, List *tables);

/* in waitingsql.c */
extern void synchro_sql_waiting_session(StringInfo sql);
extern void synchro_sql_fill_waiting(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_sql_only_waiting(StringInfo sql, const SynchroLinkTable *lt, const char *alias);

/* in guardsql.c */
extern void synchro_sql_define_guard(StringInfo sql, List *guarded);
extern void synchro_sql_guard(StringInfo sql, List *guarded);
extern void synchro_sql_check_guard(StringInfo sql, List *guarded);
extern void synchro_sql_define_check(StringInfo sql, List *guarded);

/* in heirsql.c */
extern bool synchro_sql_has_heirs(const SynchroLinkTable *lt);
extern void synchro_sql_define_heirs(StringInfo sql);
extern void synchro_sql_heirs(StringInfo sql, const SynchroLinkTable *lt);

/* in extrasql.c */
extern void synchro_sql_spare_others(StringInfo sql, List *components);
extern void synchro_sql_empty_tables(StringInfo sql, const SynchroLink *link, List *component);
extern void synchro_sql_extra(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, int64 stamp);

/* in straightsql.c */
extern bool synchro_sql_is_named_alone(const SynchroLinkTable *lt);
extern bool synchro_sql_is_straight(const SynchroLinkTable *lt);
extern void synchro_sql_straight_keys(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_sql_straight_rows(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_sql_straight_delete(StringInfo sql, const SynchroLinkTable *lt);

/* in freesql.c */
extern void synchro_sql_free_values(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt);
extern void synchro_sql_free_identities(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt);

/* pieces that these share; in stagesql.c */
extern const char *synchro_column_name(const SynchroLinkTable *lt, int column);
extern const char *synchro_stage_type(const SynchroTable *table, int identity);
extern void synchro_sql_list(StringInfo sql, const char *prefix, int count);
extern void synchro_sql_equal(StringInfo sql, const char *left, const char *right, int count);
extern void synchro_sql_value_equal(StringInfo sql, const SynchroLinkTable *lt, int i, const char *left, const char *right);
extern void synchro_sql_same_row(StringInfo sql, const SynchroLinkTable *lt, const char *left, const char *right);
extern void synchro_sql_identity_is(StringInfo sql, const SynchroLinkTable *lt, const char *alias, const char *array);
extern void synchro_sql_identity_equal(StringInfo sql, const SynchroLinkTable *lt,
									   const char *alias, const char *mapped);
extern const char *synchro_column_base(const SynchroTable *table, int column);
extern char *synchro_sql_column_text(const SynchroTable *table, int column, const char *alias);
extern char *synchro_sql_remote_text(const SynchroLinkTable *lt, int column, const char *value);
extern char *synchro_sql_remote_value(const SynchroLinkTable *lt, int column, const char *text);
extern char *synchro_sql_remote_column(const SynchroLinkTable *lt, int column, const char *alias);

/* in translation.c */
extern int	synchro_column_referenced(const SynchroLinkTable *lt, int column);
extern int	synchro_column_fk(const SynchroLinkTable *lt, int column);
extern bool synchro_fk_staged_tells(const SynchroLinkTable *lt, int fk);
extern bool synchro_fk_names_key(const SynchroLinkTable *lt, int fk);
extern bool synchro_fk_beyond_identity(const SynchroLinkTable *lt, int fk);
extern bool synchro_column_is_value_of_before(const SynchroLinkTable *lt, int column);
extern bool synchro_identity_beside_sequence(const SynchroTable *table, int column);
extern bool synchro_identity_is_value(const SynchroLinkTable *lt, int column);
extern void synchro_sql_value(StringInfo sql, const SynchroLinkTable *lt, int column,
							  const char *source, const char *part);
extern void synchro_sql_join_parents(StringInfo sql, const SynchroLinkTable *lt,
									 const char *source, bool key_only);

#endif							/* SYNCHRO_APPLYSQL_H */
