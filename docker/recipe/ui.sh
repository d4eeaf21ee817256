# Builds llama.cpp's web page in the container: /src has tools/ui and node_modules, and
# the page is written to /build/out. OMITTED lists packages that upstream's settings of
# vite import for its tests only; VERSION is the release of llama.cpp.

# The build writes beside its source, which belongs to another user in a build with
# variations.
mkdir -p /build/out/page /build/src
cp -r /src/. /build/src
cd /build/src

for name in $OMITTED; do
	mkdir -p "node_modules/$name"
	printf '{"name":"%s","type":"module","exports":{".":"./empty.js","./*":"./empty.js"}}\n' "$name" >"node_modules/$name/package.json"
	# The names that vite.config.ts imports: functions that return a plugin without hooks.
	printf 'export const storybookTest = () => ({ name: "omitted" });\nexport const playwright = () => ({});\n' >"node_modules/$name/empty.js"
done

# Without a version of its own, SvelteKit takes the time of the build.
mv svelte.config.js svelte.upstream.config.js
cat >svelte.config.js <<'EOF'
import config from './svelte.upstream.config.js';
config.kit.version = { ...config.kit.version, name: process.env.VERSION };
export default config;
EOF

# Upstream's icons, without the start pictures for iPhones and iPads.
cat >icons.config.ts <<'EOF'
import config from './pwa-assets.config';
const { appleSplashScreens, ...preset } = config.preset as Record<string, unknown>;
export default { ...config, preset };
EOF

# Upstream's settings, without a service worker, and a plugin that lists the modules
# that rollup reads. A service worker would show the page to a person who is not signed
# in, and keep answers of the API in the browser.
cat >page.config.ts <<'EOF'
import upstream from './vite.config';
import { PWA_MANIFEST, SVELTEKIT_PWA_OPTIONS } from './src/lib/constants/pwa.constants';
import { appendFileSync, writeFileSync } from 'node:fs';

SVELTEKIT_PWA_OPTIONS.disable = true;
writeFileSync('static/manifest.webmanifest', JSON.stringify({ ...PWA_MANIFEST, lang: 'en', scope: './' }));

const list = () => ({
	name: 'list-modules',
	buildEnd() {
		for (const id of this.getModuleIds()) appendFileSync('/build/modules', id + '\n');
	}
});

// zod tries whether it may run text as a script, which the page's policy reports; with
// its setting jitless it does not.
const jitless = () => ({
	name: 'zod-jitless',
	transform(code, id) {
		if (!/\/zod\/v4\/core\/util\.js$/.test(id)) return;
		if (!code.includes('globalConfig.jitless')) throw new Error('zod has no setting jitless any longer');
		return { code: code.replace('globalConfig.jitless', 'true'), map: null };
	}
});

export default async (env) => {
	const config = await (typeof upstream === 'function' ? upstream(env) : upstream);
	return {
		...config,
		build: { ...config.build, reportCompressedSize: false },
		plugins: [...config.plugins, jitless(), list()],
		worker: { ...config.worker, plugins: () => [...(config.worker?.plugins?.() ?? []), list()] }
	};
};
EOF

export LLAMA_UI_OUT_DIR=/build/out/page LLAMA_BUILD_NUMBER="$VERSION"
for config in icons.config.ts pwa-assets-dark.config.ts; do
	node node_modules/@vite-pwa/assets-generator/bin/pwa-assets-generator.mjs --root . --config "$config"
done
node scripts/make-icons-circular.js
node node_modules/vite/bin/vite.js build --config page.config.ts

LC_ALL=C sort -u /build/modules >/build/out/modules
test -s /build/out/page/index.html
