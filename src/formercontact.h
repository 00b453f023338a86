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
	uint64		sent_before;	/* what had been sent had been read before this
								 * transaction; 0: not known */
} SynchroFormerContact;

extern void synchro_former_note(const char *server);
extern SynchroFormerContact *synchro_former_read(const char *server);
extern void synchro_former_forget(const char *server);

#endif							/* SYNCHRO_FORMERCONTACT_H */
