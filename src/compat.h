/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  The only place that knows server versions: gives older servers the
 *	  newest server's interface.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_COMPAT_H
#define SYNCHRO_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "synchro needs PostgreSQL 15 or later"
#endif

/* varatt.h left postgres.h with 16; tupmacs.h had its job before */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif
#include "access/tupmacs.h"

/* Abs() for any type went with 16, which has one for this type */
#if PG_VERSION_NUM < 160000
#define i64abs(i) Abs((int64) (i))
#endif

/* written in front of the declaration since 18 */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* foreign keys over periods came with 18 */
#if PG_VERSION_NUM >= 180000
#define synchro_constraint_has_period(con) ((con)->conperiod)
#else
#define synchro_constraint_has_period(con) (false)
#endif

/* a NOT NULL constraint that is not valid says nothing of older rows; since 18 */
#if PG_VERSION_NUM >= 180000
#define synchro_attribute_not_null(desc, i) \
	(TupleDescCompactAttr(desc, i)->attnullability == ATTNULLABLE_VALID)
#else
#define synchro_attribute_not_null(desc, i) (TupleDescAttr(desc, i)->attnotnull)
#endif

/* sequences have had open and close functions of their own since 17 */
#if PG_VERSION_NUM >= 170000
#include "access/sequence.h"
#else
#include "access/relation.h"
#define sequence_open(oid, lockmode)	relation_open(oid, lockmode)
#define sequence_close(rel, lockmode)	relation_close(rel, lockmode)
#endif

/* indexes may keep state over many insertions since 17 */
#if PG_VERSION_NUM >= 170000
#define synchro_index_insert_cleanup(index, info) index_insert_cleanup(index, info)
#else
#define synchro_index_insert_cleanup(index, info) ((void) 0)
#endif

/* a subscription may truncate as itself since 16; here whoever does it is the owner */
#if PG_VERSION_NUM >= 160000
#define synchro_truncate(rels, relids, logged) \
	ExecuteTruncateGuts(rels, relids, logged, DROP_RESTRICT, false, false)
#else
#define synchro_truncate(rels, relids, logged) \
	ExecuteTruncateGuts(rels, relids, logged, DROP_RESTRICT, false)
#endif

/* wait events of extensions can be named since 17 */
#include "utils/wait_event.h"
#if PG_VERSION_NUM >= 170000
#define SYNCHRO_WAIT_EVENT(name) \
	{ \
		static uint32 event = 0; \
		if (event == 0) \
			event = WaitEventExtensionNew(name); \
		return event; \
	}
#else
#define SYNCHRO_WAIT_EVENT(name) { return PG_WAIT_EXTENSION; }
#endif
static inline uint32 synchro_wait_connect(void) SYNCHRO_WAIT_EVENT("SynchroConnect")
static inline uint32 synchro_wait_send(void) SYNCHRO_WAIT_EVENT("SynchroSend")
static inline uint32 synchro_wait_result(void) SYNCHRO_WAIT_EVENT("SynchroResult")
static inline uint32 synchro_wait_work(void) SYNCHRO_WAIT_EVENT("SynchroPusherMain")
static inline uint32 synchro_wait_launcher(void) SYNCHRO_WAIT_EVENT("SynchroLauncherMain")
static inline uint32 synchro_wait_worker(void) SYNCHRO_WAIT_EVENT("SynchroWorker")

/* a database whose DROP was cut off is marked since 16, and in late 15 */
#include "catalog/pg_database.h"
#ifdef DATCONNLIMIT_INVALID_DB
#define synchro_database_is_valid(database) ((database)->datconnlimit != DATCONNLIMIT_INVALID_DB)
#else
#define synchro_database_is_valid(database) (true)
#endif

/* one function asks for owner or rights of any object since 16 */
#if PG_VERSION_NUM >= 160000
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#define synchro_database_ownercheck(oid, role) object_ownercheck(DatabaseRelationId, oid, role)
#define synchro_extension_ownercheck(oid, role) object_ownercheck(ExtensionRelationId, oid, role)
#define synchro_namespace_aclcheck(oid, role, mode) object_aclcheck(NamespaceRelationId, oid, role, mode)
#else
#define synchro_database_ownercheck(oid, role) pg_database_ownercheck(oid, role)
#define synchro_extension_ownercheck(oid, role) pg_extension_ownercheck(oid, role)
#define synchro_namespace_aclcheck(oid, role, mode) pg_namespace_aclcheck(oid, role, mode)
#endif

/* names are parsed with soft errors since 16 */
#if PG_VERSION_NUM < 160000
#include "utils/regproc.h"
#define stringToQualifiedNameList(string, escontext) stringToQualifiedNameList(string)
#endif

/* scans take flags since 19 */
#if PG_VERSION_NUM < 190000
#include "access/tableam.h"
#define SO_NONE 0
#define table_beginscan(rel, snapshot, nkeys, key, flags) table_beginscan(rel, snapshot, nkeys, key)
#endif

/* a bitmap's iterators come in two kinds since 18, and scans for one are counted */
#include "access/genam.h"
#include "nodes/tidbitmap.h"
#if PG_VERSION_NUM >= 180000
typedef TBMPrivateIterator *SynchroBitmapIterator;
#define synchro_bitmap_begin(bitmap) tbm_begin_private_iterate(bitmap)
#define synchro_bitmap_end(iterator) tbm_end_private_iterate(iterator)
static inline bool
synchro_bitmap_next(SynchroBitmapIterator iterator, BlockNumber *block)
{
	TBMIterateResult result;
	bool		found = tbm_private_iterate(iterator, &result);

	*block = found ? result.blockno : InvalidBlockNumber;
	return found;
}
#else
typedef TBMIterator *SynchroBitmapIterator;
#define synchro_bitmap_begin(bitmap) tbm_begin_iterate(bitmap)
#define synchro_bitmap_end(iterator) tbm_end_iterate(iterator)
static inline bool
synchro_bitmap_next(SynchroBitmapIterator iterator, BlockNumber *block)
{
	TBMIterateResult *result = tbm_iterate(iterator);

	*block = result != NULL ? result->blockno : InvalidBlockNumber;
	return result != NULL;
}
#define index_beginscan_bitmap(index, snapshot, instrument, nkeys) index_beginscan_bitmap(index, snapshot, nkeys)
#endif

/* a descriptor made by hand is to be finished since 19 */
#if PG_VERSION_NUM >= 190000
#define synchro_finish_tupledesc(desc) TupleDescFinalize(desc)
#else
#define synchro_finish_tupledesc(desc) ((void) 0)
#endif

#endif							/* SYNCHRO_COMPAT_H */
