/*-------------------------------------------------------------------------
 *
 * formercontact.h
 *	  How remotes were left that are to be met anew.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_FORMERCONTACT_H
#define SYNCHRO_FORMERCONTACT_H

typedef struct SynchroFormerContact
{
	char	   *node;			/* as which the remote was met last */
	char	   *acknowledged;	/* tokens that counted then, or NULL, see */
	char	   *attempted;		/* SynchroPosition */
	bool		moved;			/* the position was, by hand, since */
	uint64		sent_before;	/* what had been sent had been read before this
								 * transaction; 0: not known */
} SynchroFormerContact;

/*
 * SQL text: the id by which remotes know this database, of pg_database d with
 * pg_control_system() c.  Where a dump was restored there are two: CREATE
 * EXTENSION has made one that no remote knows, for this database, and COPY has
 * brought the other one after it, which may be for this database, too.
 */
#define SYNCHRO_KNOWN_AS \
	"(SELECT o.id FROM synchro.node_identity o" \
	" ORDER BY o.system_identifier = c.system_identifier AND o.database = d.oid, o.ctid DESC LIMIT 1)"

extern bool synchro_former_is_noted(void);
extern void synchro_former_note(const char *server);
extern SynchroFormerContact *synchro_former_read(const char *server);
extern void synchro_former_forget(const char *server);

#endif							/* SYNCHRO_FORMERCONTACT_H */
