"""Other people's trained networks, with what their files do not say: classes, preprocessing, where they are."""
