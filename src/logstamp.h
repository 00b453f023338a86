/*-------------------------------------------------------------------------
 *
 * logstamp.h
 *	  When and where the changes of log entries were first made.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_LOGSTAMP_H
#define SYNCHRO_LOGSTAMP_H

#include "changelog.h"
#include "source.h"

typedef struct SynchroStamps SynchroStamps;

extern SynchroStamps *synchro_stamps_create(void);
extern bool synchro_stamps_note(SynchroStamps *stamps, const SynchroLogRow *row);
extern SynchroStamp synchro_stamps_of(const SynchroStamps *stamps, uint64 txid,
									  TimestampTz logged_at, SynchroStamp stamp);
extern SynchroSources *synchro_stamps_sources(const SynchroStamps *stamps);
extern const SynchroSource *synchro_stamps_source(const SynchroStamps *stamps, SynchroStamp stamp);
extern int	synchro_stamps_compare(const SynchroStamps *stamps, SynchroStamp a, SynchroStamp b);

#endif							/* SYNCHRO_LOGSTAMP_H */
