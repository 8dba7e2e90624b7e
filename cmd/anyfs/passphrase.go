package main

import "github.com/urfave/cli/v2"

// passphraseVar names the file that holds the passphrase of a home, for programs that cannot type it.
const passphraseVar = "ANYFS_PASSPHRASE_FILE"

// passphraseFlag lets a command read a passphrase from a file.
func passphraseFlag(usage string) cli.Flag {
	return &cli.StringFlag{Name: "passphrase-file", Usage: usage + " from the first line of `FILE` (- for stdin)"}
}

// currentPassphrase gives the passphrase that opens the home: from file, from the file that ANYFS_PASSPHRASE_FILE names, or
// from the terminal, in this order.
func (e *env) currentPassphrase(file string) ([]byte, error) {
	if file == "" {
		file = e.getenv(passphraseVar)
	}
	if file != "" {
		p, err := e.readSecretFile(file, false)
		if err != nil {
			return nil, failf(exitPassphrase, "the passphrase: %w", err)
		}
		return []byte(p), nil
	}
	if !e.interactive() {
		return nil, failf(exitPassphrase, "this home is guarded by a passphrase, and stdin is no terminal to ask for it; name a file that holds it in %s", passphraseVar)
	}
	p, err := e.ask("Passphrase: ")
	return []byte(p), err
}

// newPassphrase gives the passphrase to set: from file, or typed twice.
func (e *env) newPassphrase(file string) ([]byte, error) {
	if file != "" {
		p, err := e.readSecretFile(file, false)
		if err == nil && p == "" {
			err = failf(exitUsage, "the passphrase is empty")
		}
		return []byte(p), err
	}
	if !e.interactive() {
		return nil, failf(exitPassphrase, "stdin is no terminal; give the passphrase with --passphrase-file FILE")
	}
	p, err := e.ask("New passphrase: ")
	if err != nil {
		return nil, err
	}
	if p == "" {
		return nil, failf(exitUsage, "the passphrase is empty")
	}
	again, err := e.ask("Once more: ")
	if err != nil {
		return nil, err
	}
	if p != again {
		return nil, failf(exitFailed, "the two passphrases differ; nothing is changed")
	}
	return []byte(p), nil
}
