/*-------------------------------------------------------------------------
 *
 * passwork.h
 *	  A pass at work: what pass.c, passread.c, quarantine.c and division.c share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_PASSWORK_H
#define SYNCHRO_PASSWORK_H

#include "batch.h"
#include "copychunk.h"
#include "parked.h"

typedef struct SynchroPass
{
	MemoryContext context;
	SynchroLink *link;
	SynchroPosition *position;
	bool		atomic;			/* all of it is one batch */
	bool		shared;			/* the transaction of collecting is still open,
								 * for the first batch */
	SynchroChangeSet *changes;	/* since the position's snapshot */
	char	   *snapshot;		/* S1 */
	TimestampTz started;		/* when S1 was taken */
	List	   *order;			/* changed tables, parents first */
	int			current;		/* the one whose keys are being taken */
	SynchroIdentities *again;	/* of its keys, those that have failed before;
								 * NULL: none so far */
	List	   *ensured;		/* tables whose missing rows are pushed along */
	MemoryContext batch_context;
	MemoryContext next_context; /* of the batch that is read ahead */
	SynchroBatch *next;			/* that one, or NULL */
	bool		next_is_taken;	/* it has its keys */
	bool		next_is_read;	/* its rows are in the link's tables */
	bool		next_has_more;	/* it is not the last one */
	int			batch_rows;		/* keys to be taken for a batch */
	bool		taking;			/* that is going on */
	SynchroCounts counts;
	int64		keys_done;
	bool		all_due;		/* whatever is parked is to be tried */
	const List *just_stalled;	/* tables that need not be tried again so soon */
	SynchroParkedSet *parked;
	List	   *claimed;		/* new rows for which others of the remote were taken: claimed.c */
	List	   *stalled;		/* of SynchroStalled */
	bool		blames_rows;	/* errors of definitions, too, are taken for rows' */
	bool		no_straight;	/* the remote has rows that are new here */
	Oid			looked_for;		/* see SynchroBatch */
	int			nesting;		/* parents that are pushed for children */
	List	   *copies;			/* of SynchroCopy: what is queued */
	List	   *runnable;		/* of these, what something can be done for */
	SynchroCopyChunk *chunk;	/* the piece that this pass pushes, or NULL */
	List	   *extras;			/* of copies: those of which only deletes are
								 * left, or come first */
} SynchroPass;

/* a row that an error of ours names */
typedef struct SynchroNamedRow
{
	SynchroLinkTable *lt;
	char	   *key;			/* its identity as staged, as an array of text */
} SynchroNamedRow;

/* in pass.c */
extern SynchroBatch *synchro_pass_batch(SynchroPass *pass);
extern SynchroBatch *synchro_pass_new_batch(SynchroPass *pass);
extern SynchroRemoteError *synchro_pass_push(SynchroPass *pass, SynchroBatch *batch, bool final);
extern SynchroRemoteError *synchro_pass_rehearse(SynchroPass *pass, SynchroBatch *batch);
extern SynchroRemoteError *synchro_pass_try(SynchroPass *pass, SynchroBatch *batch, bool final);

/* in passmoved.c */
extern void synchro_pass_collect_moved(SynchroPass *pass, SynchroBatch *batch, const char *keys_snapshot);

/* in unreadable.c */
extern SynchroRemoteError *synchro_unreadable_read(SynchroBatch *batch);

/* in passread.c */
extern void synchro_pass_collect(SynchroPass *pass);
extern void synchro_pass_leave_out_leftovers(SynchroPass *pass);
extern SynchroRemoteError *synchro_pass_read(SynchroPass *pass, SynchroBatch *batch, bool new_keys, bool *more);
extern bool synchro_pass_may_read_ahead(const SynchroPass *pass);
extern void synchro_pass_read_ahead(SynchroPass *pass, const SynchroBatch *sent);

/* in passcopy.c */
extern void synchro_pass_choose_copy(SynchroPass *pass);
extern void synchro_pass_delete_extras(SynchroPass *pass);
extern void synchro_pass_copies_left(const SynchroPass *pass, int64 *oldest, int64 *newest);

/* in quarantine.c */
extern List *synchro_quarantine_named(SynchroLink *link, const SynchroRemoteError *error, const char *sqlstate);
extern void synchro_quarantine_require_node(SynchroLink *link, const SynchroRemoteError *error);
extern bool synchro_quarantine_again(SynchroPass *pass, SynchroBatch *batch,
									 SynchroRemoteError *error, int *retries);
extern void synchro_quarantine_olds(SynchroPass *pass, const SynchroBatch *batch, const SynchroRemoteError *error);
extern void synchro_quarantine_report(SynchroPass *pass, const SynchroRemoteError *error);

/* in parkingreason.c */
extern void synchro_parking_describe(SynchroPass *pass, const SynchroRemoteError *error, SynchroFailure *failure);
extern SynchroRemoteError *synchro_parking_shared(SynchroPass *pass, const SynchroBatch *batch, Oid relid,
												  SynchroRemoteError *error);

/* in parking.c */
extern SynchroParked *synchro_parking_key(SynchroPass *pass, const SynchroBatchKeys *keys, int position,
										  const SynchroBatchDead *dead, const SynchroRemoteError *error, bool shared);
extern SynchroParked *synchro_parking_old(SynchroPass *pass, const SynchroBatchOld *old, const SynchroRemoteError *error,
										  bool shared);
extern void synchro_parking_save_names(SynchroPass *pass);

/* in division.c */
extern void synchro_division_push(SynchroPass *pass, SynchroBatch *batch,
								  SynchroRemoteError *error, bool final);

#endif							/* SYNCHRO_PASSWORK_H */
