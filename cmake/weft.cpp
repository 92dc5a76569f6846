// The common instantiations, compiled once: what weft::compiled is.
