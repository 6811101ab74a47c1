"""Search over depth with scikit-learn: do more layers help, with and without shortcuts?

    python examples/grid_search.py [PICTURES]

PICTURES of scikit-learn's 1,797 handwritten digits are used, by default 600.
"""

from __future__ import annotations

import sys

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from deepskip.sklearn import ResNetClassifier

GRID = {"depth": [8, 20, 32], "plain": [False, True]}


def main(pictures: int = 600) -> None:
    """Fit every net of the grid three times and print its errors, the best first."""
    digits, labels = load_digits(return_X_y=True)  # rows of 64 numbers, 0 to 16: 8 × 8 pixels
    chosen = slice(min(pictures, len(labels)))
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    net = ResNetClassifier(epochs=10, lr=0.05, value_range=(0, 16))
    search = GridSearchCV(net, GRID, cv=folds).fit(digits[chosen], labels[chosen])

    found = search.cv_results_
    for i in found["rank_test_score"].argsort():
        error, spread = 100 * (1 - found["mean_test_score"][i]), 100 * found["std_test_score"][i]
        kind = "plain" if found["param_plain"][i] else "residual"
        print(f"{found['param_depth'][i]:3} layers, {kind:8} {error:5.1f}% error, sd over 3 folds {spread:.1f}")
    search.best_estimator_.model_.save_pretrained("best-digits")
    print("the best, fitted on all of them, is in best-digits/: ds.load reads it, and deepskip predict")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
