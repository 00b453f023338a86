/*-------------------------------------------------------------------------
 *
 * identities.h
 *	  Lists of rows' identities, as text.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_IDENTITIES_H
#define SYNCHRO_IDENTITIES_H

#include "keycodec.h"
#include "utils/hsearch.h"

/* each identity is nidentity strings, NULL where null */
typedef struct SynchroIdentities
{
	int			nidentity;
	int			count;
	int			allocated;
	char	  **values;			/* identity by identity */
	struct SynchroRowStamp *stamps; /* one for each, or NULL */
} SynchroIdentities;

/* when a row was changed, and inserted if the remote does not know it */
typedef struct SynchroRowStamp
{
	SynchroStamp changed;
	TimestampTz born;
} SynchroRowStamp;

extern SynchroIdentities *synchro_identities_create(const SynchroTable *table);
extern void synchro_identities_add(SynchroIdentities *identities, char **values);
extern void synchro_identities_decode(SynchroIdentities *identities,
									  const SynchroTable *table, SynchroBytes bytes);
extern void synchro_identities_stamp(SynchroIdentities *identities, SynchroStamp changed,
									 TimestampTz born);
extern SynchroIdentities *synchro_identities_nth(const SynchroIdentities *identities, int n);
extern void synchro_identities_enter(const SynchroIdentities *identities, HTAB *set);
extern void synchro_identities_intersect(SynchroIdentities *identities, HTAB *set);
extern void synchro_identities_subtract(SynchroIdentities *identities, HTAB *set);
extern int	synchro_identities_run(const SynchroIdentities *identities, const SynchroTable *table,
								   int first);
extern char *synchro_identities_text(const SynchroIdentities *identities, int position);
extern Datum synchro_identities_array(const SynchroIdentities *identities, int first,
									  int count, int position);
extern int	synchro_identities_params(const SynchroIdentities *identities, const SynchroTable *table,
									  int first, int count, Oid *types, Datum *params);
extern int	synchro_identities_bounds(const SynchroIdentities *identities, const SynchroTable *table,
									  int first, int count, Oid *types, Datum *params);
extern SynchroBytes synchro_identities_encode(const SynchroTable *table, const int *columns,
											  int ncolumns, char **values);
extern char **synchro_identities_read(TupleTableSlot *slot);
extern char **synchro_identities_values(const SynchroTable *table, const int *columns,
										int ncolumns, SynchroBytes bytes);
extern int	synchro_identities_split(const char *array_text, char ***values);
extern SynchroBytes synchro_identities_encode_text(const SynchroTable *table, const int *columns,
												   int ncolumns, const char *array_text);
extern char *synchro_identities_array_text(const SynchroTable *table, const int *columns,
										   int ncolumns, SynchroBytes bytes);
extern char *synchro_identity_key(char **values, int count);
extern HTAB *synchro_string_set(MemoryContext context);
extern HTAB *synchro_string_table(MemoryContext context, Size entrysize);
extern void synchro_copy_put(StringInfo line, const char *value);

#endif							/* SYNCHRO_IDENTITIES_H */
