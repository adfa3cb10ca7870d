//! `images`: an image proxy and thumbnailer whose results are shared through zerocache.

fn main() {}
