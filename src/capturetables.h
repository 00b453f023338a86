/*-------------------------------------------------------------------------
 *
 * capturetables.h
 *	  The tables that the transaction has changed, by numbers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CAPTURETABLES_H
#define SYNCHRO_CAPTURETABLES_H

/* kept by the caller for each table; all zero at first */
typedef struct SynchroTablePlace
{
	uint64		tx_epoch;		/* transaction for which tx_index is good */
	uint16		tx_index;
} SynchroTablePlace;

extern uint16 synchro_capture_table_index(SynchroTablePlace *place, Oid relation, uint32 layout);
extern Oid	synchro_capture_table(uint16 index, uint32 *layout);
extern bool synchro_capture_moves_together(SynchroTablePlace *place, Oid relation, uint32 layout, CommandId command);
extern void synchro_capture_forget_tables(void);

#endif							/* SYNCHRO_CAPTURETABLES_H */
