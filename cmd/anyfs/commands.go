package main

import "github.com/urfave/cli/v2"

// commands are all commands, in the order in which help lists them.
func commands(e *env) []*cli.Command {
	return []*cli.Command{
		initCommand(e),
		loginCommand(e),
		mountCommand(e),
		unmountCommand(e),
		statusCommand(e),
		{
			Name:  "account",
			Usage: "show the account and its recovery phrase, change the passphrase, or replace the account",
			Description: `Examples:
  anyfs account show
  anyfs account card
  anyfs account phrase
  anyfs account passphrase
  anyfs account replace`,
			Subcommands: []*cli.Command{
				accountShowCommand(e),
				accountCardCommand(e),
				accountPhraseCommand(e),
				accountPassphraseCommand(e),
				accountReplaceCommand(e),
			},
		},
		{
			Name:  "space",
			Usage: "create, list, rename and delete spaces, and say where their content is",
			Description: `The folders at the top of the mount are spaces; mkdir, mv and rmdir there do the same.

Examples:
  anyfs space create Work
  anyfs space list
  anyfs space info Work`,
			Subcommands: []*cli.Command{
				spaceCreateCommand(e),
				spaceListCommand(e),
				spaceInfoCommand(e),
				spacePolicyCommand(e),
				spaceNetworkCommand(e),
				spaceRenameCommand(e),
				spaceDeleteCommand(e),
			},
		},
		inviteCommand(e),
		invitesCommand(e),
		joinCommand(e),
		membersCommand(e),
		requestsCommand(e),
		approveCommand(e),
		declineCommand(e),
		roleCommand(e),
		removeCommand(e),
		leaveCommand(e),
		transferCommand(e),
		quarantineCommand(e),
		adoptCommand(e),
		deviceCommand(e),
		peerCommand(e),
		networkCommand(e),
		nodeCommand(e),
		pauseCommand(e),
		resumeCommand(e),
		limitCommand(e),
		conflictsCommand(e),
		watchCommand(e),
		pinCommand(e),
		unpinCommand(e),
		evictCommand(e),
		logCommand(e),
		restoreCommand(e),
		pruneCommand(e),
		verifyCommand(e),
		exportCommand(e),
		importCommand(e),
		completionCommand(e),
		versionCommand(e),
		helpCommand(e),
		completeCommand(e),
	}
}
