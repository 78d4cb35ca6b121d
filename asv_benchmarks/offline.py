"""Make the pages of `asv publish` open without a network.

Their scripts come from content networks. Install the same as npm packages, then point the pages there:

    npm install --prefix /tmp/vendor jquery@3.3.1 flot@0.8.3 flot-orderbars@1.0.0 blueimp-md5@2.19.0 \
        bootstrap@3.1.1 stupid-table-plugin@1.1.3
    python offline.py /tmp/vendor/node_modules
"""

import re
import shutil
import sys
from pathlib import Path

# What the address ends with → where the package has it.
FILES = {
    "jquery-3.3.1.min.js": "jquery/dist/jquery.min.js",
    "jquery.flot.min.js": "flot/jquery.flot.js",
    "jquery.flot.time.min.js": "flot/jquery.flot.time.js",
    "jquery.flot.selection.min.js": "flot/jquery.flot.selection.js",
    "jquery.flot.categories.min.js": "flot/jquery.flot.categories.js",
    "jquery.flot.orderBars.js": "flot-orderbars/js/jquery.flot.orderBars.js",
    "stupidtable.min.js": "stupid-table-plugin/stupidtable.min.js",
    "md5.min.js": "blueimp-md5/js/md5.min.js",
    "bootstrap.min.js": "bootstrap/dist/js/bootstrap.min.js",
    "bootstrap.min.css": "bootstrap/dist/css/bootstrap.min.css",
}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    packages, html = Path(sys.argv[1]), Path(__file__).parent / ".asv" / "html"
    (html / "vendor").mkdir(exist_ok=True)
    page = html / "index.html"
    text = page.read_text(encoding="utf-8")
    for name, source in FILES.items():
        text, found = re.subn(rf'"https://[^"]*/{re.escape(name)}"', f'"vendor/{name}"', text)
        if not found:
            sys.exit(f"index.html asks for no {name}: this version of asv has other scripts")
        shutil.copy(packages / source, html / "vendor" / name)
    # A checksum of another build of the same file, and a rule for other hosts, would refuse the local one.
    text = re.sub(r' (integrity|crossorigin)="[^"]*"', "", text)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
