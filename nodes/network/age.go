package network

// AgeEpochs is how many epochs an age has. A coordinator that was restored from a backup begins a new age: what the nodes hold may be less than
// they held before, so devices ask anew.
const AgeEpochs = 1 << 20

// Age is the age of the configuration's epoch, from 0.
func (c *Config) Age() uint64 { return c.Epoch / AgeEpochs }

// NextAge is the first epoch of the next age.
func (c *Config) NextAge() uint64 { return (c.Age() + 1) * AgeEpochs }
