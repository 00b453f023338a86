/*-------------------------------------------------------------------------
 *
 * batch.h
 *	  One batch through one remote transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_BATCH_H
#define SYNCHRO_BATCH_H

#include "changeset.h"
#include "checkpoint.h"
#include "preview.h"
#include "rowstream.h"

/* keys of one table in a batch */
typedef struct SynchroBatchKeys
{
	Oid			relid;
	SynchroIdentities *identities;
	bool		ensure;			/* their rows shall only be there */
} SynchroBatchKeys;

/* a row whose delete is sent again */
typedef struct SynchroBatchDead
{
	Oid			relid;
	char	   *text;			/* see synchro_identity_key() */
	bool		alone;			/* only the name: its row is not among the keys */
	SynchroChangedKey key;
} SynchroBatchDead;

/* a row with a name of before */
typedef struct SynchroBatchOld
{
	Oid			relid;
	SynchroChangedKey key;
} SynchroBatchOld;

typedef struct SynchroBatch
{
	SynchroLink *link;
	SynchroPosition *position;
	bool		atomic;			/* all of the pass is one batch */
	List	   *keys;			/* of SynchroBatchKeys */
	List	   *dead;			/* of SynchroBatchDead */
	SynchroChangeSet *olds;		/* names of before */
	char	   *seen;			/* what the remote has pushed here, as a
								 * snapshot of it, or NULL */
	char	   *named_there;	/* likewise, of what its rows are called */
	List	   *ensured;		/* oids of tables whose missing rows are pushed
								 * when they are referenced */
	char	   *keys_snapshot;	/* when the rows were read */
	char	   *snapshot;		/* where the pass has come to, or NULL */
	SynchroParkedSet *parked;	/* what of it failed is left out */
	int64		max_olds;		/* only so many rows with names of before */
	int64		skipped_olds;	/* and not the first so many of these */
	TimestampTz olds_turn;		/* of them, those that have failed by
								 * themselves later than that come last */
	int64		nolds;			/* how many it has */
	uint64		olds_mark;		/* another one for other rows, and for these as
								 * they are after another change */
	SynchroBatchOld last_old;	/* the last of them, if it has max_olds */
	bool		note_olds;		/* fill the next */
	List	   *all_olds;		/* of SynchroBatchOld: all of them */
	List	   *named;			/* of SynchroBatchKeys: of each table the first few
								 * of these rows, and those that are parked */
	bool		note_ensured;	/* fill the next */
	List	   *ensured_rows;	/* of SynchroBatchKeys: rows that others needed */
	List	   *stalled;		/* of SynchroStalled: tables that are left out */
	List	   *moved;			/* of SynchroBatchKeys: rows that the next pass
								 * pushes, and that may refer to what it deletes */
	List	   *guarded;		/* of SynchroGuarded: these and rows that wait,
								 * which are not to go along with that */
	bool		names_waiting;	/* rows that wait were named: these, or others of
								 * the batch's tables */
	bool		apart;			/* deletes are tried one by one */
	List	   *kept;			/* of those, names of their tables */
	List	   *undeleted;		/* of SynchroUndeleted: those that have failed */
	bool		looked_again;	/* at the tables' definitions */
	bool		careful;		/* free unique values before they are taken */
	bool		by_copy;		/* no VALUES: errors of COPY name the column */
	bool		may_be_straight;	/* straightsql.c may be tried */
	SynchroLinkTable *straight; /* that table, if they do; or whose rows are
								 * deleted by nothing but their names */
	Oid			looked_for;		/* table of whose new rows some were looked
								 * for in vain, or InvalidOid */
	SynchroCounts counts;
	List	   *extras;			/* of SynchroCopy: of these tables, what is on
								 * the remote only is to go */
	List	   *emptied;		/* of SynchroCopy: of these tables, all of the
								 * remote's rows are to go */
	List	   *anew;			/* of SynchroAnew: what the remote made anew */
	List	   *claimed;		/* which rows have claimed others: claimed.c */
	List	   *shown;			/* of SynchroPreviewRow: what a preview is told */
	SynchroMeanwhile meanwhile; /* what is done while the remote applies it, or
								 * NULL */
	SynchroMeanwhile before_commit; /* what is done before the remote is told
									 * to commit, or NULL */
	void	   *hook_arg;		/* of both */
	bool		commits_late;	/* COMMIT comes after the script */
	List	   *told;			/* of SynchroAnew: what follows these is logged */
	bool		withdrawn;		/* rolled back, since anew has others */
} SynchroBatch;

/* in batchread.c */
extern bool synchro_batch_describe(SynchroBatch *batch);
extern bool synchro_batch_is_plain(const SynchroBatch *batch);
extern void synchro_batch_read(SynchroBatch *batch);
extern void synchro_batch_note_unborn(SynchroBatch *batch, SynchroLinkTable *lt, const SynchroIdentities *named);
extern void synchro_batch_read_waiting(SynchroBatch *batch);
extern void synchro_batch_read_changed(SynchroBatch *batch, SynchroLinkTable *lt, const SynchroIdentities *identities);

/* in batcholds.c */
extern void synchro_batch_require_rights(SynchroBatch *batch, const SynchroLinkTable *lt);
extern bool synchro_batch_keep_name(SynchroBatch *batch, SynchroParked *parked, const SynchroChangedTable *changed,
									const SynchroChangedKey *old_name);
extern void synchro_batch_read_olds(SynchroBatch *batch, bool last);

/* in batchdetached.c */
extern void synchro_batch_spare_detached(SynchroBatch *batch);

/* in batchcalled.c */
extern void synchro_batch_keep_called(SynchroBatch *batch);

/* in batchguard.c */
extern List *synchro_batch_deleted_tables(const SynchroBatch *batch);
extern bool synchro_batch_goes_along(Oid relid, const List *deleted);
extern List *synchro_batch_guarded_tables(const SynchroBatch *batch);
extern void synchro_batch_read_guarded(SynchroBatch *batch);

/* in batchdeletes.c */
extern void synchro_batch_append_deletes(SynchroBatch *batch, StringInfo sql, List *components);

/* in batchscript.c */
extern int64 synchro_batch_staged(const List *tables);
extern List *synchro_batch_emptied(const SynchroLink *link, List *copies);
extern char *synchro_batch_script(SynchroBatch *batch, const char *token, bool commit, List **spools);
extern char *synchro_batch_name_script(SynchroBatch *batch, List **spools);

/* in batch.c */
extern int	synchro_batch_count_keys(const List *keys);
extern SynchroRemoteError *synchro_batch_apply(SynchroBatch *batch, const char *token, bool commit);
extern char *synchro_batch_name(SynchroBatch *batch);

#endif							/* SYNCHRO_BATCH_H */
