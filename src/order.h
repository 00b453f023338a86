/*-------------------------------------------------------------------------
 *
 * order.h
 *	  Tables in the order of their foreign keys.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_ORDER_H
#define SYNCHRO_ORDER_H

#include "link.h"

extern List *synchro_order_by_names(List *tables);
extern List *synchro_order_by_references(List *tables);

#endif							/* SYNCHRO_ORDER_H */
