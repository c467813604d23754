// Marks the two programs executable after the compiler has written them (npm does it only for installed packages).
import { chmodSync, existsSync } from 'node:fs'

for (const file of ['dist/supervisor/main.js', 'dist/cli/main.js']) if (existsSync(file)) chmodSync(file, 0o755)
