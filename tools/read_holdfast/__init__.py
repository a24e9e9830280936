"""Read a Holdfast repository: list, restore, check, and print archived logs.

    read-holdfast REPO --passphrase-file F list [--json]
    read-holdfast REPO --passphrase-file F restore BACKUP DIR
    read-holdfast REPO --passphrase-file F check [--json]
    read-holdfast REPO --passphrase-file F log NAME --list [--json]
    read-holdfast REPO --passphrase-file F log NAME --cat FILE [--stream HEX]

Written from the text in format-spec/ alone (format version 1) by somebody who had not seen a line of
the program that writes repositories; what he had to guess has been settled in the text since, and
where it settled otherwise, here. It changes nothing in the repository and takes no locks.

`--key-file F` opens a slot of kind "key file"; `--recovery-kit F` uses a recovery kit. BACKUP is
the 26 letters of a backup's id, or the beginning of them when no other backup begins so. NAME is
the name or id of a server, or the 72 hexadecimal digits of one stream.

Everything read is verified: checksums, the chain of records, tags of the encryption, commitments
to keys, and the id of every block. What does not verify is never written out. Where a segment
has parity, damaged stretches are rebuilt from it, verified like everything else, and reported.

Exit status: 0 good; 1 the system refuses (output, permissions); 2 wrong usage; 10 no repository;
12 no secret opens it; 20 what was asked for is not there; 21 damage. Damage that was met on the
way is told on stderr by every command. `restore` still ends with 0 where every byte of the backup
was proved right in spite of it (another copy, parity); the others end with 21.

Modules, each of which uses only those before it: `errors`, `limits`, `wire` (numbers and texts),
`crypto`, `objects`, `keyring`, `records`, `manifest`, `parity`, `segments`, `logs`, `maps`,
`repository`, `restore`, `check`, `cli`.
"""
