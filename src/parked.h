/*-------------------------------------------------------------------------
 *
 * parked.h
 *	  Changes that could not be applied on a remote, and wait.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_PARKED_H
#define SYNCHRO_PARKED_H

#include "changelog.h"
#include "changestore.h"
#include "identities.h"
#include "source.h"

/* the hint of a delete that a foreign key there refuses */
#define SYNCHRO_STILL_REFERENCED "Delete the rows there that refer to it, or have them refer to another one."

/*
 * When to try again after so many attempts, as SQL: after a second, and twice
 * as long each time up to synchro.retry_max_interval, a fifth more or less.
 */
#define SYNCHRO_NEXT_ATTEMPT(attempts, limit) \
	"clock_timestamp() + least(power(2, least(" attempts ", 30) - 1), " limit ") * (0.8 + 0.4 * random()) * interval '1 s'"

/*
 * Has a time come that was set for an attempt?  One that is further away than any would have
 * been set for has been left behind by a clock that was set back.  limit: as above.
 */
#define SYNCHRO_IS_DUE(next_attempt, limit) \
	"(" next_attempt " NOT BETWEEN clock_timestamp() AND clock_timestamp() + " limit " * interval '1 s' + interval '1 day')"

/* one that is kept here */
typedef struct SynchroParked
{
	char	   *row;			/* table and identity */
	int64		id;
	Oid			relid;
	uint32		layout;
	TimestampTz changed_at;
	SynchroBytes record;		/* as in the log */
	TimestampTz alone;			/* when it has failed by itself; 0: never */
	bool		has_name;		/* of before, or is a delete */
	bool		due;			/* to be tried in this pass */
	bool		banned;			/* has failed in this pass */
	bool		ensured;		/* nothing waits but that the row is there */
	bool		unreadable;		/* so is what it is called: see unreadable.c */
	bool		moves;			/* though what it was called before goes along */
	bool		others_banned;	/* and so have names of others, which had its
								 * identity */
	const char *name;			/* these two only of what fails in a preview: */
	const char *reason;			/* what is shown of it */
} SynchroParked;

/* what its record says has been done to the row */
#define SYNCHRO_PARKED_OP(parked)	((SynchroOp) ((parked)->record.data[0] & SYNCHRO_KEY_OP_MASK))

/* all of a remote's */
typedef struct SynchroParkedSet
{
	MemoryContext context;
	char	   *server;
	HTAB	   *rows;
	int			count;
	bool		any_due;
	bool		has_deletes;	/* which wait on the remote */
	List	   *deletes;		/* names of their tables, if any is due */
	List	   *unsaved;		/* of UnsavedName */
	List	   *held;			/* of SynchroFailure: likewise, see
								 * synchro_parked_hold() */
} SynchroParkedSet;

/* what is to be parked */
typedef struct SynchroFailure
{
	const SynchroTable *table;
	char	  **identity;
	SynchroOp	op;
	bool		has_old;
	SynchroBytes old;			/* what the remote calls the row */
	bool		moves;			/* of a row known by reference: to the identity
								 * that it has now */
	SynchroStamp stamp;
	const pg_uuid_t *origin;
	const char *sqlstate;
	const char *message;
	bool		ensured;		/* the row was only to be there */
	bool		shared;			/* it was not tried by itself: the reason is
								 * another's, if it has none of its own */
	/* these may be NULL */
	const char *constraint;
	const char *detail;
	const char *hint;
} SynchroFailure;

/* deletes of a table that the remote has tried one by one */
typedef struct SynchroUndeleted
{
	char	   *relation;		/* as SQL writes it */
	/* texts of arrays of text, NULL if none has failed */
	char	   *keys;
	char	   *sqlstates;
	char	   *messages;
	char	   *constraints;
} SynchroUndeleted;

/* in parkedset.c */
extern char *synchro_parked_row(Oid relid, char **identity, int nidentity);
extern SynchroParkedSet *synchro_parked_create(const char *server);
extern void synchro_parked_remember(SynchroParkedSet *set, const SynchroParked *parked);
extern SynchroParked *synchro_parked_find(const SynchroParkedSet *set, Oid relid,
										  char **identity, int nidentity);
extern SynchroParked *synchro_parked_find_key(const SynchroParkedSet *set, const SynchroTable *table, SynchroBytes identity);
extern SynchroParked *synchro_parked_find_text(const SynchroParkedSet *set, const SynchroTable *table,
											   const char *array_text);
extern SynchroParked *synchro_parked_again(const SynchroParkedSet *set, const SynchroParked *parked);
extern TimestampTz synchro_parked_turn(const SynchroParkedSet *set, int count);
extern void synchro_parked_scan(const SynchroParkedSet *set, SynchroLogCallback callback, void *arg);
extern Datum synchro_parked_without_name(const SynchroParkedSet *set, Oid relid);
extern List *synchro_parked_names(const SynchroParkedSet *set, const SynchroTable *table);
extern List *synchro_parked_tables(const SynchroParkedSet *set);
extern SynchroIdentities *synchro_parked_inserts(const SynchroParkedSet *set, const SynchroTable *table);
extern SynchroIdentities *synchro_parked_updates(const SynchroParkedSet *set, const SynchroTable *table, bool renamed);
extern List *synchro_parked_waiting(const SynchroParkedSet *set, const SynchroTable *table);
extern bool synchro_parked_is_insert(const SynchroParked *parked, const SynchroTable *table);
extern SynchroStamp synchro_parked_stamp(const SynchroParked *parked, const SynchroTable *table);
extern List *synchro_parked_kept(const SynchroParkedSet *set);
extern void synchro_parked_forget(SynchroParkedSet *set, List *healed);

/* in parked.c */
extern SynchroParkedSet *synchro_parked_load(const char *server, bool all_due);
extern SynchroParked *synchro_parked_put(SynchroParkedSet *set, const SynchroFailure *failure);
extern SynchroParked *synchro_parked_keep(SynchroParkedSet *set, const SynchroFailure *failure);
extern void synchro_parked_keep_name(SynchroParkedSet *set, SynchroParked *parked, const SynchroTable *table,
									 const SynchroChangedKey *name, const SynchroSources *sources);
extern void synchro_parked_take_place(SynchroParkedSet *set, SynchroParked *parked, const SynchroTable *table,
									  const SynchroChangedKey *name, const SynchroSources *sources);
extern void synchro_parked_call(SynchroParkedSet *set, SynchroParked *parked, const SynchroTable *table,
								SynchroBytes identity, SynchroBytes name);
extern void synchro_parked_forget_name(SynchroParkedSet *set, SynchroParked *parked, const SynchroTable *table,
									   SynchroBytes identity);
extern void synchro_parked_hold(SynchroParkedSet *set, const SynchroTable *table, const SynchroChangedKey *name,
								const SynchroSources *sources, const char *by);
extern void synchro_parked_save_names(SynchroParkedSet *set);
extern void synchro_parked_sent(List *healing, const char *token);
extern void synchro_parked_settle(const char *server, const char *token);
extern TimestampTz synchro_parked_next(const char *server, TimestampTz since);

/* in parkeddeletes.c */
extern void synchro_parked_put_deletes(SynchroParkedSet *set, List *tables, List *undeleted);

#endif							/* SYNCHRO_PARKED_H */
