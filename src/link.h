/*-------------------------------------------------------------------------
 *
 * link.h
 *	  What a worker knows of the remote that it is connected to: session,
 *	  tables on both sides, and their staging tables there.
 *
 * A link lives as long as its connection; so do its tables' descriptions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_LINK_H
#define SYNCHRO_LINK_H

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "utils/uuid.h"

#include "remotetable.h"
#include "target.h"

/*
 * A table's staging tables on the remote.  They last as long as the session
 * there, and this as long as the link, however often the table is described
 * anew: that is so whenever somebody analyzes it.
 */
typedef struct SynchroStaging
{
	Oid			relid;
	int			number;			/* in their names */
	char	   *names;			/* SQL that has made n_ and m_; NULL: not there */
	char	   *rows;			/* SQL that has made s_; likewise */
	bool		gone;			/* our table is, so they are to be dropped */
	bool		stale;			/* rows of the last batch are in them */
	int64		staged;			/* bytes put in since they were truncated */
	int64		dead;			/* rows put in since, and deleted */
	int64		passed;			/* of them, sum over the batches since */
	bool		analyzes;		/* the batch at hand has the planner look into m_ */
	bool		analyzed;		/* one has that was committed, and looked much like others */

	/* the batch that was sent last */
	bool		was_known;		/* it has emptied them, if they were stale */
	bool		was_involved;
	int64		sent_bytes;		/* of its rows and names */
	int64		sent_rows;		/* how many these were */
} SynchroStaging;

/* a table, here and there, and its part in the batch at hand */
typedef struct SynchroLinkTable
{
	const SynchroTable *table;
	SynchroRemoteTable *remote;
	SynchroStaging *staging;
	int			number;			/* of its staging tables */
	Oid			root;			/* the table whose rows need this one */
	bool		for_rows;		/* rows of it are pushed, not just looked up */
	bool		decides;		/* the remote logs it: the newer change wins */
	bool		emptied;		/* described to have all its rows deleted */
	bool		names_staged;	/* n_ and m_ are as this needs them */
	bool		rows_staged;	/* so is s_ */

	/* which foreign keys are translated: their parents have an identity */
	struct SynchroLinkTable **parents;	/* by foreign key; NULL: as it is */
	bool	   *same_references;	/* by column, see samevalue.c */
	bool	   *pushed;			/* by column: staged and written */
	List	   *placeholders;	/* of SynchroPlaceholder, in a preview */

	/* the batch at hand */
	bool		involved;
	bool		all_names;		/* the names of all rows are in it */
	struct SynchroRequests *requests;	/* names that rows refer to */
	SynchroSpool *rows;			/* rows to be as they are here */
	SynchroSpool *names;		/* natural keys to be looked up */
	SynchroSpool *waiting;		/* of them, those for rows that wait: see
								 * waitingsql.c */
	SynchroSpool *changes;		/* when rows were changed */
	StringInfo	pairs;			/* references that the remote has left here */
	StringInfo	pairs_of_others;	/* likewise, other nodes */
	int64		nrows;
	int64		nensured;		/* of them, only to be there */
	int64		nnames;
	int64		nolds;			/* of the names, those of before */
	int64		nrenamed;		/* of these, of rows that live on */
	int64		nwaiting;		/* and those of rows that wait, see parked.c */
	List	   *unborn;			/* rows that are named though their insert
								 * waits: queries of identities */
	bool		unmapped;		/* rows are looked up as they are written */

	bool		had_olds;		/* the batch that was sent last left deletes,
								 * unless it was a pass's last */
} SynchroLinkTable;

/* the remote's clock, see clocklink.c; times in microseconds */
typedef struct SynchroLinkClock
{
	bool		asked;			/* whether the remote runs synchro, too */
	bool		there;			/* it does */
	bool		measured;
	TimestampTz measured_at;	/* when difference was, by our clock */
	TimestampTz tried_at;		/* when that was last looked at again */
	int64		difference;		/* the remote's clock less ours */
	int64		uncertainty;
	int64		own_uncertainty;	/* of this node's offset */
} SynchroLinkClock;

typedef struct SynchroLink
{
	MemoryContext context;
	SynchroTarget *target;
	SynchroRemote *remote;
	char	   *node;			/* our id, as the remote knows it */
	char	   *previous_node;	/* what it was before confirm_node(), or NULL */
	const char *extension;		/* OID of ours there, or 0 */
	pg_uuid_t  *peer_node;		/* id of the remote if it logs changes, too;
								 * else NULL */
	bool		is_other;		/* it has become one since, or is none any
								 * more, so is to be met anew */
	char	   *search_path;	/* the role's own there, ours in front */
	const char *peer;			/* schema with position and references */
	SynchroLinkClock clock;
	bool		compares;		/* nothing is pushed, only looked at */
	List	   *tables;			/* of SynchroLinkTable */
	List	   *stagings;		/* of SynchroStaging */
	int			last_number;
	bool		session_prepared;	/* synchro_sql_session() was run */
	bool		heirs_defined;	/* synchro_sql_define_heirs() was */
	struct SynchroPrepared *prepared;	/* see prepared.c; NULL: none yet */
	bool		forgets_references; /* the next batch has the remote forget them */
	bool		knows_tables;	/* the remote has a table for the next */
	List	   *known;			/* of KnownTable, see known.c */
	uint64		generation;		/* see synchro_table_generation() */
	const char **keywords;		/* what we connected with */
	const char **values;
	bool		password_required;
	uint64		conninfo_generation;	/* see synchro_link_is_outdated() */
	int			statement_timeout;
	MemoryContext tables_context;
	MemoryContext batch_context;	/* spools and requests of the batch at hand */
	bool		for_waiting;	/* what is named of it now is so for rows that
								 * wait */
	MemoryContext sent_context; /* of the one that is being sent */
	List	   *sent;			/* its spools */
	int64		untold;			/* changes of its own that the remote does not
								 * know to have come here */
	int			crossing;		/* so many batches look for names that have
								 * changed hands there, see crosssql.c */
	int			mapping;		/* so many batches find all their rows by maps,
								 * see upsertsql.c */
	List	   *leftovers;		/* names of tables with deletes that batches
								 * before the last have left to it */
	MemoryContext leftovers_context;	/* what they lie in */
	struct SynchroPreview *preview; /* nothing is to be written, only shown;
									 * else NULL */
} SynchroLink;

extern SynchroLink *synchro_link_create(SynchroTarget *target, MemoryContext parent);
extern SynchroLink *synchro_link_open(SynchroTarget *target);
extern void synchro_link_close(SynchroLink *link);
extern bool synchro_link_is_outdated(SynchroLink *link);
extern void synchro_link_refresh(SynchroLink *link);
extern void synchro_link_forget(SynchroLink *link);
extern SynchroLinkTable *synchro_link_table(SynchroLink *link, Oid relid, bool for_rows);
extern SynchroLinkTable *synchro_link_numbered(SynchroLink *link, long number, bool missing_ok);
extern bool synchro_link_is_prepared(const SynchroLink *link);
extern void synchro_link_clear_batch(SynchroLink *link);
extern void synchro_link_send_batch(SynchroLink *link);
extern void synchro_link_clear_sent(SynchroLink *link);
extern void synchro_link_add_leftover(SynchroLink *link, const char *table);
extern void synchro_link_forget_leftovers(SynchroLink *link);

#endif							/* SYNCHRO_LINK_H */
