// Package crashpoint names the places at which a crash is worth trying, and lets a test end the process there.
//
// Here does so in a binary that was built with the tag "crashpoints", when the environment asks for it. In every other it is
// empty, and nothing of it is left. What is done at a point is done neither half nor twice: the names say between which two
// steps they stand.
package crashpoint

// Point names a place.
type Point string

// The places, in the order in which what a person does passes them.
const (
	JournalWrite   Point = "journal: before records are written"
	JournalWritten Point = "journal: records are written, nobody was answered"
	JournalSync    Point = "journal: before a sync"
	JournalSynced  Point = "journal: synced, nobody was answered"
	JournalNext    Point = "journal: a file is begun, nothing is in it"
	JournalMade    Point = "journal: a new file has its name"
	JournalErase   Point = "journal: before the header of a file is erased"
	JournalErased  Point = "journal: a header is erased"
	JournalMove    Point = "journal: what a start found is copied, the original is there too"

	BlockWrite   Point = "block: before a block is written"
	BlockBody    Point = "block: a block is written without its header"
	BlockWritten Point = "block: a block is written, nothing refers to it"
	BlockSegment Point = "block: a segment is made, nothing is in it"
	BlockSync    Point = "block: before a sync"
	BlockSynced  Point = "block: synced"
	BlockEvicted Point = "block: some blocks of a prune are gone"
	BlockMoved   Point = "block: a block is copied elsewhere"
	BlockRemove  Point = "block: before a segment is removed"
	BlockRemoved Point = "block: a segment is removed"

	BatchAppend   Point = "batch: before one is appended"
	BatchAppended Point = "batch: one is appended"
	BatchSegment  Point = "batch: a segment is made, nothing is in it"

	StreamSealed Point = "stream: a chunk is stored, the journal does not refer to it"

	PublishBegin  Point = "publish: the contents are stored, the batch is not made"
	PublishNote   Point = "publish: the batch is appended, the journal does not know"
	PublishNoted  Point = "publish: the journal knows, nothing is synced"
	PublishSynced Point = "publish: the batch is synced, the journal is not"

	CheckpointBegin   Point = "checkpoint: what it holds is chosen"
	CheckpointDurable Point = "checkpoint: what it refers to is durable"
	CheckpointCommit  Point = "checkpoint: before the commit"
	CheckpointDone    Point = "checkpoint: committed, the journal does not know"
	CheckpointRelease Point = "checkpoint: the journal knows"

	PruneNoted Point = "prune: what goes is noted"

	SpaceNumber  Point = "space: its number is taken"
	SpaceMade    Point = "space: its folder is filled, without the mark that it is whole"
	SpaceWhole   Point = "space: its folder is whole, no name refers to it"
	SpaceDelete  Point = "space: marked for deletion"
	SpaceUnnamed Point = "space: its name is gone, its folder is there"
	SpaceMarkOff Point = "space: the mark that it is whole is gone"
)

// Points are all of them.
var Points = []Point{
	JournalWrite, JournalWritten, JournalSync, JournalSynced, JournalNext, JournalMade, JournalErase, JournalErased, JournalMove,
	BlockWrite, BlockBody, BlockWritten, BlockSegment, BlockSync, BlockSynced, BlockEvicted, BlockMoved, BlockRemove, BlockRemoved,
	BatchAppend, BatchAppended, BatchSegment,
	StreamSealed,
	PublishBegin, PublishNote, PublishNoted, PublishSynced,
	CheckpointBegin, CheckpointDurable, CheckpointCommit, CheckpointDone, CheckpointRelease,
	PruneNoted,
	SpaceNumber, SpaceMade, SpaceWhole, SpaceDelete, SpaceUnnamed, SpaceMarkOff,
}

// Env names the variable that asks for a crash: the number of a passing, a colon, and a point.
const Env = "ANYFS_CRASH"

// EnvLater is like Env, but passings count from the first SIGUSR1 on.
const EnvLater = "ANYFS_CRASH_LATER"
